package check

import (
	"fmt"
	"slices"
	"time"
)

// A Phase is a stretch of a history, and what the calls that began in it achieve.
type Phase struct {
	Name     string
	From, To time.Duration // To is excluded
	Calls    int           // at least so many
	Success  float64       // at least this share of them has an answer, or was applied
	// Within is what the share Quantile of those that succeed takes at most; zero
	// is no bound.
	Within   time.Duration
	Quantile float64
}

// A Peak is the most that was seen of something, and its bound.
type Peak struct {
	Name        string
	Value, Most int64
}

// Expected is what Liveness looks for.
type Expected struct {
	Phases []Phase
	Peaks  []Peak
	// Sometimes counts what has to happen now and then in a history that is worth
	// its name: a fault, or a defence at work.
	Sometimes map[string]uint64
}

// Liveness is K8: calls succeed, in time, as far as each phase lets them; what is
// bounded stays in its bounds; and what should happen sometimes did.
func Liveness(history []Op, e Expected) []Violation {
	var violations []Violation
	broken := func(format string, args ...any) {
		violations = append(violations, Violation{"K8", Op{}, fmt.Sprintf(format, args...)})
	}
	for _, p := range e.Phases {
		calls, took := 0, []time.Duration(nil)
		for i := range history {
			if o := &history[i]; o.Start >= p.From && o.Start < p.To {
				calls++
				if o.Outcome == Applied {
					took = append(took, o.End-o.Start)
				}
			}
		}
		if calls < p.Calls || calls == 0 {
			broken("%s: %d calls, at least %d were to come", p.Name, calls, max(p.Calls, 1))
			continue
		}
		if float64(len(took)) < p.Success*float64(calls) {
			broken("%s: %d of %d calls succeeded, less than %v of them", p.Name, len(took), calls, p.Success)
		}
		if p.Within > 0 && len(took) > 0 {
			slices.Sort(took)
			if at := took[min(int(p.Quantile*float64(len(took))), len(took)-1)]; at > p.Within {
				broken("%s: the quantile %v of %d calls is %v, above %v", p.Name, p.Quantile, len(took), at, p.Within)
			}
		}
	}
	for _, p := range e.Peaks {
		if p.Value > p.Most {
			broken("%s: %d, at most %d was allowed", p.Name, p.Value, p.Most)
		}
	}
	var names []string
	for name := range e.Sometimes {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if e.Sometimes[name] == 0 {
			broken("never: %s", name)
		}
	}
	return violations
}
