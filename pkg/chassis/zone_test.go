package chassis

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/offloadd/offloadd/pkg/ovsdb/vswitchdb"
)

func set(names ...string) map[string]struct{} {
	m := map[string]struct{}{}
	for _, n := range names {
		m[n] = struct{}{}
	}
	return m
}

func TestAssignZones(t *testing.T) {
	const now = 9
	type zones = map[string]zone
	old := func(id uint16) zone { return zone{id: id, phase: used, turn: 1} }
	is := func(id uint16) zone { return zone{id: id, phase: used, turn: now} }
	for _, tt := range []struct {
		name      string
		have      zones
		users     map[string]struct{}
		requested map[string]uint16
		keep      bool
		want      zones
		flush     []uint16
	}{
		{name: "nobody"},
		{name: "the first users", users: set("b", "a"), want: zones{"a": is(1), "b": is(2)}, flush: []uint16{1, 2}},
		{name: "gaps are filled", have: zones{"a": old(2)}, users: set("a", "b", "c"), want: zones{"a": old(2), "b": is(1), "c": is(3)}, flush: []uint16{1, 3}},
		{name: "a user goes", have: zones{"a": old(1), "b": old(2)}, users: set("b"), want: zones{"b": old(2)}, flush: []uint16{1}},
		{name: "its zone is used again", have: zones{"a": old(1)}, users: set("b"), want: zones{"b": is(1)}, flush: []uint16{1}},
		{
			name: "who is gone is not known", have: zones{"a": old(1)}, users: set("b"), keep: true,
			want: zones{"a": {id: 1, phase: left, turn: 1}, "b": is(2)}, flush: []uint16{2},
		},
		{
			name: "one that was gone is back", have: zones{"a": {id: 1, phase: left, turn: 1}}, users: set("a"),
			want: zones{"a": is(1)}, flush: []uint16{1},
		},
		{
			name: "an earlier run's zone is kept as it is", have: zones{"a": {id: 5}, "b": {id: 6}}, users: set("a"), keep: true,
			want: zones{"a": {id: 5, phase: used}, "b": {id: 6}},
		},
		{
			name: "two had the same zone", have: zones{"a": {id: 5}, "b": {id: 5}}, users: set("a", "b"),
			want: zones{"a": {id: 5, phase: used}, "b": is(1)}, flush: []uint16{1},
		},
		{
			name: "a request is granted", have: zones{"r": old(1)}, users: set("r"), requested: map[string]uint16{"r": 40},
			want: zones{"r": is(40)}, flush: []uint16{40},
		},
		{
			name: "a request takes another's zone", have: zones{"a": old(1)}, users: set("a", "r"), requested: map[string]uint16{"r": 1},
			want: zones{"r": is(1), "a": is(2)}, flush: []uint16{1, 2},
		},
		{
			name: "two request the same zone", users: set("r", "s"), requested: map[string]uint16{"r": 7, "s": 7},
			want: zones{"r": is(7), "s": is(7)}, flush: []uint16{7},
		},
		{
			name: "a withdrawn request keeps what it got", have: zones{"r": old(7)}, users: set("r"),
			want: zones{"r": old(7)},
		},
		{
			name: "of two that shared a requested zone one moves when the requests end", have: zones{"r": old(7), "s": old(7)},
			users: set("r", "s"), want: zones{"r": old(7), "s": is(1)}, flush: []uint16{1},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, flush, without := assignZones(tt.have, tt.users, tt.requested, tt.keep, now)
			if !maps.Equal(got, tt.want) || !slices.Equal(flush, tt.flush) || len(without) != 0 {
				t.Errorf("zones %v, flush %v, without %v; want %v, %v, none", got, flush, without, tt.want, tt.flush)
			}
		})
	}
}

// There are 65535 zones; who comes too late gets none, and gets one when somebody leaves.
func TestZonesExhausted(t *testing.T) {
	users := map[string]struct{}{}
	for i := range maxZone + 2 {
		users[fmt.Sprintf("p%05d", i)] = struct{}{}
	}
	zones, _, without := assignZones(nil, users, nil, false, 1)
	if want := []string{"p65535", "p65536"}; !slices.Equal(without, want) || len(zones) != maxZone {
		t.Fatalf("%d zones, without %v; want %d, %v", len(zones), without, maxZone, want)
	}
	freed := zones["p00007"].id
	delete(users, "p00007")
	zones, flush, without := assignZones(zones, users, nil, false, 2)
	if zones["p65535"].id != freed || !slices.Equal(flush, []uint16{freed}) || !slices.Equal(without, []string{"p65536"}) {
		t.Errorf("p65535 got %d, flush %v, without %v; want %d", zones["p65535"].id, flush, without, freed)
	}
}

// However users come and go: those that do not ask for a zone share none, a zone that gets a user is flushed, and a
// user that stays keeps its zone unless somebody asked for it.
func TestZoneLaws(t *testing.T) {
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		var zones map[string]zone
		for turn := range uint64(30) {
			users, requested := map[string]struct{}{}, map[string]uint16{}
			for _, n := range []string{"a", "b", "c", "d", "e", "f"} {
				if rnd.IntN(3) > 0 {
					users[n] = struct{}{}
				}
				if rnd.IntN(6) == 0 {
					requested[n] = uint16(1 + rnd.IntN(4))
				}
			}
			next, flush, without := assignZones(zones, users, requested, rnd.IntN(2) == 0, turn)
			holder := map[uint16]string{}
			for name, z := range next {
				_, user := users[name]
				_, asks := requested[name]
				if other, ok := holder[z.id]; ok && (!asks || requested[other] != z.id) {
					t.Fatalf("seed %d turn %d: %s and %s share zone %d: %v", seed, turn, name, other, z.id, next)
				}
				holder[z.id] = name
				before, had := zones[name]
				if user && (!had || before.id != z.id || before.phase == left) && !slices.Contains(flush, z.id) {
					t.Fatalf("seed %d turn %d: zone %d comes to %s unflushed", seed, turn, z.id, name)
				}
			}
			for name := range users {
				if next[name].id == 0 || len(without) > 0 {
					t.Fatalf("seed %d turn %d: %s has no zone", seed, turn, name)
				}
			}
			zones = next
		}
	}
}

func TestRestoreZones(t *testing.T) {
	got := restoreZones(&vswitchdb.Bridge{ExternalIDs: map[string]string{
		"ct-zone-a": "1", "ct-zone-": "2", "ct-zone-b": "0", "ct-zone-c": "65536", "ct-zone-d": "x", "ct-zone-e": "65535", "other": "3",
		"ct-zone-" + strings.Repeat("n", 300): "9",
	}})
	want := map[string]zone{"a": {id: 1}, "e": {id: 65535}, strings.Repeat("n", 300): {id: 9}}
	if !maps.Equal(got, want) {
		t.Errorf("restoreZones() = %v, want %v", got, want)
	}
}
