package path

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"
)

// readFacts reads what the kernel has of the path, after packets have passed it.
func (s *site) readFacts() error {
	facts := map[string]string{}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return fmt.Errorf("uname: %w", err)
	}
	facts["kernel"] = unix.ByteSliceToString(u.Release[:])
	for _, e := range []struct {
		side string
		end  End
	}{{"client", s.path.Client}, {"server", s.path.Server}} {
		link, err := s.end(e.end).byName(e.end.Device)
		if err != nil {
			return err
		}
		facts[e.side+" device"] = link.Type()
		facts[e.side+" mtu"] = fmt.Sprint(link.Attrs().MTU)
	}
	maps.Copy(facts, s.path.Facts)
	s.path.Facts = facts
	return nil
}

// sorted are the namespaces of the path by name.
func (s *site) sorted() []*space {
	return slices.SortedFunc(maps.Values(s.spaces), func(a, b *space) int { return cmp.Compare(a.name, b.name) })
}
