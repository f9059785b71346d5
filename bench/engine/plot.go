package main

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strings"
)

// colours of the engines, in the order of the register: ours stands out.
var colours = []string{"#d1495b", "#30638e", "#5b8e7d", "#8d6a9f", "#edae49", "#6c757d", "#7fb7be", "#bbbbbb"}

func colour(engine string) string {
	return colours[slices.Index(peerNames(), engine)%len(colours)]
}

// plots draws bars for each family of workloads, and lines over time for those
// that were sampled. The values are SVG files.
func plots(results []result) map[string][]byte {
	results = slices.DeleteFunc(slices.Clone(results), func(r result) bool { return r.Engine == "nothing" })
	families := map[string][]row{}
	for _, r := range rows(results) {
		if r.engines[machine] != nil {
			continue
		}
		family, _, _ := strings.Cut(r.name, "/")
		families[family] = append(families[family], r)
	}
	all := map[string][]byte{}
	for family, rs := range families {
		all[family] = bars(family, rs)
	}
	sampled := map[string][]result{}
	for _, r := range results {
		first := !slices.ContainsFunc(sampled[r.Workload], func(o result) bool { return o.Engine == r.Engine })
		if len(r.Samples) > 0 && first {
			sampled[r.Workload] = append(sampled[r.Workload], r)
		}
	}
	for name, rs := range sampled {
		family, _, _ := strings.Cut(name, "/")
		all[family+"-over-time"] = lines(name, rs)
	}
	return all
}

// A canvas collects the elements of a drawing.
type canvas struct {
	bytes.Buffer
	height int
}

const width = 760

func (c *canvas) text(x, y float64, anchor, style, text string) {
	fmt.Fprintf(c, `<text x="%.1f" y="%.1f" text-anchor="%s" %s>%s</text>`+"\n", x, y, anchor, style, text)
}

// file gives the SVG file. It brings its own background, for readers whose page is dark.
func (c *canvas) file() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" font-family="sans-serif" font-size="12">`+"\n", width, c.height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#ffffff"/>`+"\n", width, c.height)
	b.Write(c.Bytes())
	b.WriteString("</svg>\n")
	return b.Bytes()
}

// bars draws a panel for each row: a bar for the median of each engine, with a
// thin line from the slowest to the fastest round. Every panel has its own scale.
func bars(family string, rs []row) []byte {
	const (
		left, right = 110.0, 130.0 // for the names and the numbers
		bar, gap    = 16.0, 4.0
		title       = 26.0
	)
	var c canvas
	y := 24.0
	c.text(10, y, "start", `font-size="15" font-weight="bold"`, family+": operations per second")
	y += 14
	for _, r := range rs {
		top := 0.0
		for _, of := range r.engines {
			top = max(top, slices.Max(of))
		}
		if top == 0 {
			continue
		}
		_, variant, _ := strings.Cut(r.name, "/")
		c.text(left, y+14, "start", `font-weight="bold"`, variant)
		y += title
		for _, name := range peerNames() {
			of := r.rates(name)
			if len(of) == 0 {
				continue
			}
			s := spreadOf(of)
			x := func(v float64) float64 { return left + v/top*(width-left-right) }
			middle := y + bar/2
			c.text(left-6, y+12, "end", "", name)
			fmt.Fprintf(&c, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"/>`+"\n", left, y, x(s.median)-left, bar, colour(name))
			fmt.Fprintf(&c, `<path d="M%.1f %.1fH%.1f" stroke="#222222"/>`+"\n", x(s.low), middle, x(s.high))
			c.text(max(x(s.high), x(s.median))+6, y+12, "start", "", rate(s.median))
			y += bar + gap
		}
		y += gap
	}
	c.height = int(y) + 10
	return c.file()
}

// lines draws the samples of each engine over time.
func lines(name string, rs []result) []byte {
	const (
		left, top     = 70.0, 60.0
		right, bottom = width - 20.0, 360.0
		gridLines     = 4
	)
	var c canvas
	c.height = 400
	c.text(10, 24, "start", `font-size="15" font-weight="bold"`, name+": operations per second in each half second, first round")
	highest, longest := 0.0, 1
	for _, r := range rs {
		highest, longest = max(highest, slices.Max(r.Samples)), max(longest, len(r.Samples))
	}
	step := roundUp(highest / gridLines)
	for i := range gridLines + 1 {
		y := bottom - float64(i)/gridLines*(bottom-top)
		fmt.Fprintf(&c, `<path d="M%.1f %.1fH%.1f" stroke="#dddddd"/>`+"\n", left, y, right)
		c.text(left-6, y+4, "end", "", rate(float64(i)*step))
	}
	seconds := float64(longest) * sampleEvery.Seconds()
	c.text(left, bottom+18, "middle", "", "0")
	c.text(right, bottom+18, "end", "", fmt.Sprintf("%.0f s", seconds))
	slices.SortFunc(rs, func(a, b result) int {
		return slices.Index(peerNames(), a.Engine) - slices.Index(peerNames(), b.Engine)
	})
	x := left
	for _, r := range rs {
		var path strings.Builder
		for i, rate := range r.Samples {
			letter := "L"
			if i == 0 {
				letter = "M"
			}
			fmt.Fprintf(&path, "%s%.1f %.1f", letter, left+float64(i+1)/float64(longest)*(right-left), bottom-rate/(step*gridLines)*(bottom-top))
		}
		fmt.Fprintf(&c, `<path d="%s" fill="none" stroke="%s" stroke-width="1.5"/>`+"\n", path.String(), colour(r.Engine))
		fmt.Fprintf(&c, `<rect x="%.1f" y="38" width="12" height="12" fill="%s"/>`+"\n", x, colour(r.Engine))
		c.text(x+16, 48, "start", "", r.Engine)
		x += 105
	}
	return c.file()
}

// roundUp gives the next 1, 2, 2.5 or 5 times a power of ten.
func roundUp(v float64) float64 {
	if v <= 0 {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range []float64{1, 2, 2.5, 5} {
		if m*power >= v {
			return m * power
		}
	}
	return 10 * power
}
