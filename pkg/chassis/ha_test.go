package chassis

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/offloadd/offloadd/pkg/sb"
)

// haStore returns a Southbound with chassis hv1 to hv5, a group of candidates given as name=priority, and the chassis
// that refer to it.
func haStore(candidates, refs string) (*sb.Store, sb.UUID, map[string]*sb.Chassis) {
	store := sb.NewStore()
	chassis := map[string]*sb.Chassis{}
	for i := range byte(5) {
		c := &sb.Chassis{UUID: sb.UUID{1, i}, Name: fmt.Sprintf("hv%d", i+1)}
		chassis[c.Name] = c
		store.Chassis[c.UUID] = c
	}
	g := &sb.HAChassisGroup{UUID: sb.UUID{2}}
	for i, w := range strings.Fields(candidates) {
		name, priority, _ := strings.Cut(w, "=")
		m := &sb.HAChassis{UUID: sb.UUID{3, byte(i)}}
		if chassis[name] != nil {
			m.Chassis = chassis[name].UUID
		}
		_, _ = fmt.Sscan(priority, &m.Priority)
		store.HAChassis[m.UUID] = m
		g.HAChassis = append(g.HAChassis, m.UUID)
	}
	for name := range strings.FieldsSeq(refs) {
		g.RefChassis = append(g.RefChassis, chassis[name].UUID)
	}
	store.HAChassisGroups[g.UUID] = g
	return store, g.UUID, chassis
}

func TestLeadsHAGroup(t *testing.T) {
	for _, tt := range []struct {
		name, candidates, refs, active string
		want                           string // chassis that lead when all see the active ones, sorted
	}{
		{"one candidate leads whatever it sees", "hv1=1", "", "", "hv1"},
		{"the only candidate that exists leads", "hv1=1 gone=9", "", "", "hv1"},
		{"no tunnel at all: nobody leads", "hv1=1 hv2=2", "", "", ""},
		{"the highest priority leads", "hv1=1 hv2=3 hv3=2", "", "hv1 hv2 hv3", "hv2"},
		{"of equal priorities the last name leads", "hv1=1 hv2=1", "hv4", "hv1 hv2 hv4", "hv2"},
		{"alone, but some referring chassis is seen", "hv1=1 hv2=2", "hv4", "hv4", "hv1 hv2"},
		{"alone, and nobody who refers is seen", "hv1=1 hv2=2", "hv4", "hv5", ""},
		{"a chassis that is no candidate does not lead", "hv2=1", "", "hv1 hv2", "hv2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			store, group, chassis := haStore(tt.candidates, tt.refs)
			var leaders []string
			for _, name := range slices.Sorted(maps.Keys(chassis)) {
				if inHAGroup(store, group, chassis[name].UUID) && leadsHAGroup(store, group, chassis[name], set(strings.Fields(tt.active)...)) {
					leaders = append(leaders, name)
				}
			}
			if got := strings.Join(leaders, " "); got != tt.want {
				t.Errorf("leaders %q, want %q", got, tt.want)
			}
		})
	}
}

func TestBFDPeers(t *testing.T) {
	for _, tt := range []struct{ candidates, refs, me, want string }{
		{"hv1=1", "hv4", "hv1", ""},
		{"hv1=1 hv2=2", "", "hv1", "hv2"},
		{"hv1=1 hv2=2", "hv4 hv5", "hv1", "hv2 hv4 hv5"},
		{"hv1=1 hv2=2", "hv4 hv5", "hv4", "hv1 hv2"},
		{"hv1=1 hv2=2", "hv4", "hv3", ""},
		{"hv1=1 gone=2", "hv4", "hv1", "hv4"},
	} {
		store, _, chassis := haStore(tt.candidates, tt.refs)
		got := slices.Sorted(maps.Keys(bfdPeers(store, chassis[tt.me])))
		if strings.Join(got, " ") != tt.want {
			t.Errorf("bfdPeers of %s in group (%s) with (%s) = %v, want %s", tt.me, tt.candidates, tt.refs, got, tt.want)
		}
	}
}
