package kvstore

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

const (
	// lookupEvery is the time between two resolutions of the seeds' names, and
	// lookupTimeout bounds one of them.
	lookupEvery   = 30 * time.Second
	lookupTimeout = 5 * time.Second
)

// seeds are the addresses to meet the cluster through. Names behind dns:// and
// srv:// are looked up again now and then, since what they stand for moves.
type seeds struct {
	own      string // this node's address, left out
	fixed    []string
	names    []string
	resolved atomic.Pointer[[]string]
	fresh    atomic.Bool // resolved changed, and gossip does not know yet
}

func newSeeds(list []string, own string) *seeds {
	s := &seeds{own: own}
	for _, seed := range list {
		if strings.Contains(seed, "://") {
			s.names = append(s.names, seed)
		} else {
			s.fixed = append(s.fixed, seed)
		}
	}
	return s
}

// addrs gives the addresses known now.
func (s *seeds) addrs() []string {
	var out []string
	add := func(list []string) {
		for _, a := range list {
			if a != s.own {
				out = append(out, a)
			}
		}
	}
	add(s.fixed)
	if p := s.resolved.Load(); p != nil {
		add(*p)
	}
	return out
}

// watch looks the names up, again and again until ctx is over.
func (s *seeds) watch(ctx context.Context, log *slog.Logger) {
	if len(s.names) == 0 {
		return
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			if err := s.resolve(ctx); err != nil {
				log.Warn("kvstore: a seed's name is not found", "err", err)
			}
			timer.Reset(lookupEvery)
		}
	}
}

// resolve looks all names up, once. A name that is not found adds nothing; when
// that leaves none, the addresses of the last success are kept.
func (s *seeds) resolve(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	var all []string
	var failed error
	for _, name := range s.names {
		found, err := lookup(ctx, name)
		if err != nil {
			failed = err
		}
		all = append(all, found...)
	}
	if len(all) > 0 {
		s.resolved.Store(&all)
		s.fresh.Store(true)
	}
	return failed
}

func lookup(ctx context.Context, seed string) ([]string, error) {
	scheme, name, _ := strings.Cut(seed, "://")
	var out []string
	if scheme == "srv" {
		_, found, err := net.DefaultResolver.LookupSRV(ctx, "", "", name)
		for _, r := range found {
			out = append(out, net.JoinHostPort(strings.TrimSuffix(r.Target, "."), strconv.Itoa(int(r.Port))))
		}
		return out, err
	}
	host, port, err := net.SplitHostPort(name)
	if err != nil {
		return nil, err
	}
	found, err := net.DefaultResolver.LookupHost(ctx, host)
	for _, h := range found {
		out = append(out, net.JoinHostPort(h, port))
	}
	return out, err
}

// validateAddr refuses what is not host:port.
func validateAddr(addr string) error {
	_, port, err := net.SplitHostPort(addr)
	if err == nil && port != "" {
		n, bad := strconv.Atoi(port)
		if bad != nil || n >= 0 && n <= 65535 { // ports have names, too
			return nil
		}
	}
	return fmt.Errorf("%q is not host:port, with a port from 0 to 65535", addr)
}

// validateSeed refuses what can never be an address.
func validateSeed(seed string) error {
	scheme, name, ok := strings.Cut(seed, "://")
	if !ok {
		scheme, name = "", seed
	}
	switch scheme {
	case "srv":
		if name == "" {
			return fmt.Errorf("%q has no name", seed)
		}
		return nil
	case "", "dns":
		host, port, err := net.SplitHostPort(name)
		if err != nil || host == "" || port == "" {
			return fmt.Errorf("%q is not host:port", seed)
		}
		return nil
	}
	return fmt.Errorf("%q: use host:port, dns://name:port or srv://name", seed)
}
