package kvstore

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// lookupTimeout bounds one resolution of a seed's name.
const lookupTimeout = 5 * time.Second

// seeds are the addresses to meet the cluster through. Names behind dns:// and
// srv:// are looked up again now and then, since what they stand for moves.
type seeds struct {
	own      string // this node's address, left out
	fixed    []string
	names    []string
	resolved atomic.Pointer[[]string]
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

// resolve looks the names up. A name that cannot be resolved adds nothing; the
// addresses of the last success are kept while all fail.
func (s *seeds) resolve(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	var all []string
	var failed error
	for _, name := range s.names {
		found, err := lookup(ctx, name)
		if err != nil {
			failed = err
			continue
		}
		all = append(all, found...)
	}
	if len(all) > 0 || failed == nil {
		s.resolved.Store(&all)
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
