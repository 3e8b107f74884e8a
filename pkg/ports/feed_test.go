package ports

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
)

func key(n int) Key { return Key{Network: "net", ContainerID: strconv.Itoa(n), Ifname: "eth0"} }

func put(f *Feed, n int, s State) Port { return f.Put(Port{Spec: Spec{Key: key(n)}, State: s}) }

// Whoever applies what the feed tells, however slowly, knows what is there.
func TestFeedReaderArrives(t *testing.T) {
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		f := NewFeed()
		f.keep = 1 + rnd.IntN(20)
		known, revision := map[Key]State{}, uint64(0)
		missed := 0
		for range 60 {
			for range rnd.IntN(12) {
				n := rnd.IntN(5)
				if rnd.IntN(3) == 0 {
					f.Remove(key(n))
				} else {
					put(f, n, States()[rnd.IntN(len(States()))])
				}
			}
			if f.revision == revision {
				continue // Next would wait
			}
			events, lost, err := f.Next(t.Context(), revision)
			switch {
			case err != nil:
				t.Fatalf("seed %d: %v", seed, err)
			case lost > 0:
				missed++
				if lost != f.revision-revision || len(events) > 0 {
					t.Fatalf("seed %d: lost %d and %d events of %d", seed, lost, len(events), f.revision-revision)
				}
				all, now := f.All()
				clear(known)
				for _, p := range all {
					known[p.Spec.Key] = p.State
				}
				revision = now
			default:
				for _, e := range events {
					if e.Revision <= revision || e.Revision != e.Port.Revision {
						t.Fatalf("seed %d: event %d of port %d after %d", seed, e.Revision, e.Port.Revision, revision)
					}
					revision = e.Revision
					if e.Deleted {
						delete(known, e.Port.Spec.Key)
					} else {
						known[e.Port.Spec.Key] = e.Port.State
					}
				}
			}
			want := map[Key]State{}
			for k, p := range f.ports {
				want[k] = p.State
			}
			if !maps.Equal(known, want) {
				t.Fatalf("seed %d: the reader knows %v, there is %v", seed, known, want)
			}
		}
		if seed == 0 && missed == 0 {
			t.Error("no reader ever was too slow: the test does not test that")
		}
	}
}

func TestFeedNextWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := NewFeed()
		ctx, cancel := context.WithCancel(t.Context())
		told := make(chan Event)
		ended := make(chan error)
		go func() {
			revision := uint64(0)
			for {
				events, _, err := f.Next(ctx, revision)
				if err != nil {
					ended <- err
					return
				}
				for _, e := range events {
					revision = e.Revision
					told <- e
				}
			}
		}()
		for n := range 3 {
			synctest.Wait()
			want := put(f, n, Ready)
			if got := <-told; got.Revision != want.Revision || got.Port.Spec.Key != key(n) {
				t.Errorf("told of %+v, want %+v", got, want)
			}
		}
		f.Remove(key(9)) // there is none: nobody is told
		synctest.Wait()
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
	})
}

func TestFeedOrder(t *testing.T) {
	f := NewFeed()
	for _, n := range []int{3, 1, 2} {
		put(f, n, Ready)
	}
	f.Put(Port{Spec: Spec{Key: Key{Network: "a"}}})
	all, revision := f.All()
	if revision != 4 || !slices.IsSortedFunc(all, func(a, b Port) int { return a.Spec.Key.Compare(b.Spec.Key) }) {
		t.Errorf("revision %d, %v", revision, all)
	}
	// Of several changes of a port only the last is told, in its place.
	put(f, 1, Deleting)
	put(f, 2, Plugged)
	f.Remove(key(1))
	events, _, err := f.Next(t.Context(), revision)
	if err != nil || len(events) != 2 || events[0].Port.Spec.Key != key(2) || !events[1].Deleted || events[1].Port.State != Deleting {
		t.Errorf("events %+v, %v", events, err)
	}
}

func TestFeedTokens(t *testing.T) {
	f, other := NewFeed(), NewFeed()
	put(f, 1, Ready)
	put(other, 1, Ready)
	if r, err := f.Revision(f.Token(1)); r != 1 || err != nil {
		t.Errorf("Revision = %d, %v", r, err)
	}
	for _, token := range []string{"", ".1", f.Token(2), other.Token(1), f.epoch, f.epoch + ".", f.epoch + ".-1", f.epoch + ".1x"} {
		if r, err := f.Revision(token); !errors.Is(err, ErrForeignToken) {
			t.Errorf("Revision(%q) = %d, %v", token, r, err)
		}
	}
}
