package apply

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/offloadd/offloadd/pkg/ir"
)

// What is told of a table is what it desires, in order, and is where the switch has been told to put it. Each owner is
// told of the keys at which it wants something, and all of them together of all keys.
func TestWantedIsDesired(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		table := NewFlowTable()
		installed := map[Key]Flow{}
		for range 6 {
			for range 5 {
				table.Replace(Replacement{Owner: owner(1 + rnd.IntN(6)), Rules: randomRules(rnd)})
			}
			desired := map[Key]Flow{}
			table.Desired(func(k Key, f Flow) { desired[k] = f })
			all := table.Wanted(nil)
			if len(all) != len(desired) {
				t.Fatalf("seed %d: %d wanted, %d desired", seed, len(all), len(desired))
			}
			if !slices.IsSortedFunc(all, compareKeys) {
				t.Fatalf("seed %d: not in order: %v", seed, all)
			}
			byKey := map[Key]Wanted{}
			for _, w := range all {
				byKey[w.Key] = w
				want := Pending
				if f, ok := installed[w.Key]; ok && f == w.Flow {
					want = Installed
				}
				if w.Flow != desired[w.Key] || w.Presence != want {
					t.Fatalf("seed %d: %+v, want %+v with presence %d", seed, w, desired[w.Key], want)
				}
			}
			union := map[Key]int{}
			for n := range 8 {
				for _, w := range table.WantedBy(owner(n)) {
					union[w.Key]++
					if !slices.Contains(w.Rows, owner(n).Row) {
						t.Fatalf("seed %d: owner %d wants %+v, but is not among its rows", seed, n, w)
					}
				}
			}
			for k, n := range union {
				if len(byKey[k].Rows) != n {
					t.Fatalf("seed %d: %d owners want %+v", seed, n, byKey[k])
				}
			}
			if len(union) != len(all) {
				t.Fatalf("seed %d: owners want %d keys, all of them %d", seed, len(union), len(all))
			}
			if rnd.IntN(2) == 0 {
				if err := bridge(installed, table.Mods()); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
			}
		}
	}
}

func compareKeys(a, b Wanted) int {
	return cmp.Or(cmp.Compare(a.Key.Table, b.Key.Table), cmp.Compare(b.Key.Priority, a.Key.Priority), cmp.Compare(a.Key.Match, b.Key.Match))
}

func TestWantedKeepsAndRefused(t *testing.T) {
	table := NewFlowTable()
	table.Replace(Replacement{Owner: owner(1), Rules: []ir.Rule{rule(1, 1, ir.Resubmit{Table: 9}), rule(2, 1, ir.Resubmit{Table: 9})}})
	table.Replace(Replacement{Owner: Owner{}, Rules: []ir.Rule{rule(2, 0)}})
	no := errors.New("no")
	for _, m := range table.Mods() {
		if m.Priority == 2 {
			table.Refused(m, no)
		}
	}
	got := table.Wanted(func(w Wanted) bool { return w.Key.Priority == 2 })
	if len(got) != 1 || got[0].Presence != Refused || !errors.Is(got[0].Err, no) {
		t.Fatalf("Wanted() = %+v, want one that was refused", got)
	}
	if rows := got[0].Rows; len(rows) != 1 || rows[0] != owner(1).Row {
		t.Errorf("rows %v, want owner 1's alone: the zero UUID is no row", rows)
	}
	table.Replace(Replacement{Owner: owner(1), Rules: []ir.Rule{rule(2, 1, ir.Resubmit{Table: 10})}})
	if w := table.WantedBy(owner(1)); len(w) != 1 || w[0].Presence != Pending || w[0].Err != nil {
		t.Errorf("WantedBy() = %+v, want another flow, which nobody has refused", w)
	}
}

// Questions are answered with a bridge, without one, and while one cannot be reached; and not after ctx has ended.
func TestAsk(t *testing.T) {
	b := newBench(t)
	count := func() (n int, known bool, err error) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		err = b.Ask(ctx, func(t *FlowTable, k bool) { n, known = len(t.Wanted(nil)), k })
		return n, known, err
	}
	b.Put(whole(1, numbered(10)))
	b.installed(1)
	if n, known, err := count(); n != 10 || !known || err != nil {
		t.Errorf("with a bridge: %d flows, known %v, %v", n, known, err)
	}
	b.SetPath("")
	b.until("no bridge", func(s Status) bool { return !s.Connected })
	if n, known, err := count(); n != 10 || known || err != nil {
		t.Errorf("without a bridge: %d flows, known %v, %v", n, known, err)
	}
	b.SetPath("/nonexistent")
	b.until("an error", func(s Status) bool { return s.Err != nil })
	for range 20 {
		if n, known, err := count(); n != 10 || known || err != nil {
			t.Errorf("with a bridge that cannot be reached: %d flows, known %v, %v", n, known, err)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	idle := NewFlows(slog.New(slog.DiscardHandler)) // does not run
	if err := idle.Ask(ended, func(*FlowTable, bool) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("Ask after ctx's end = %v", err)
	}
}
