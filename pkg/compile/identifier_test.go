package compile

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// Whatever the history: equal things share an identifier in 1..max, different ones do not, none is lost, and what
// nobody holds is free for others.
func TestIdentifiers(t *testing.T) {
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 0))
	const most = 7
	ids := newIdentifiers(most)
	held := map[string]int{}
	of := map[string]uint32{}
	none := 0
	for step := range 20000 {
		key := fmt.Sprint("key ", rnd.IntN(12))
		if held[key] > 0 && rnd.IntN(2) == 0 {
			ids.release(of[key])
			if held[key]--; held[key] == 0 {
				delete(held, key)
			}
			continue
		}
		id := ids.take(key)
		if id == 0 {
			none++
			if len(held) != most || held[key] > 0 {
				t.Fatalf("seed %d step %d: none left for %s, with %d of %d in use", seed, step, key, len(held), most)
			}
			continue
		}
		if id > most || held[key] > 0 && id != of[key] {
			t.Fatalf("seed %d step %d: %s has %d, had %d", seed, step, key, id, of[key])
		}
		for other := range held {
			if other != key && of[other] == id {
				t.Fatalf("seed %d step %d: %s and %s have %d", seed, step, key, other, id)
			}
		}
		held[key]++
		of[key] = id
	}
	if none == 0 {
		t.Errorf("seed %d: there was always an identifier left", seed)
	}
}

// After a restart things have the identifiers they had, whatever the order in which they come.
func TestIdentifiersSurviveRestart(t *testing.T) {
	before, after := newIdentifiers(maxGroupID), newIdentifiers(maxGroupID)
	const n = 1000
	got := map[string]uint32{}
	for i := range n {
		key := fmt.Sprint("key ", i)
		got[key] = before.take(key)
	}
	for i := range n {
		key := fmt.Sprint("key ", n-1-i)
		if id := after.take(key); id != got[key] {
			t.Errorf("%s has %d, had %d", key, id, got[key])
		}
	}
}
