package device

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/offloadd/offloadd/pkg/devlink"
	"github.com/offloadd/offloadd/pkg/reason"
)

// A history is a book, what has really happened, and a kernel that does what it is asked for.
type history struct {
	*testing.T
	*rand.Rand
	b     *book
	steps []string

	exists map[key]facts
	has    map[string]Function // by owner, what Acquire gave them and Release has not taken
	waits  map[string]bool     // owners for whom something is being made
	dirty  map[key]bool        // functions that were used and not reset since
	claims map[string]Function
	made   []uint32 // sfnums, in the order in which they were tried
	freed  map[uint32]int
	last   uint64 // generation
	owners int
	index  int
}

var nics = []devlink.Handle{{Bus: "pci", Dev: "0000:03:00.0"}, {Bus: "pci", Dev: "0000:03:00.1"}}

func newHistory(t *testing.T, seed uint64) *history {
	pools, err := Check([]Pool{
		{Name: "a-vf", Device: "pci/0000:03:00.0", Kind: VF, VFs: "0-2"},
		{Name: "b-vf", Device: "pci/0000:03:00.0", Kind: VF},
		{Name: "c-sf", Device: "pci/0000:03:00.0", Kind: SF, MinWarm: 2, MaxWarm: 3, Max: 6},
		{Name: "d-sf", Device: "pci/0000:03:00.1", Kind: SF, MinWarm: 1, MaxWarm: 1, Max: 2},
	})
	if err != nil {
		t.Fatal(err)
	}
	h := &history{
		T: t, Rand: rand.New(rand.NewPCG(seed, 0)), b: newBook(pools, 0), exists: map[key]facts{}, has: map[string]Function{}, waits: map[string]bool{},
		dirty: map[key]bool{}, claims: map[string]Function{}, freed: map[uint32]int{}, index: 10,
	}
	for i, p := range h.b.pools {
		h.b.place(p, nics[i/3])
	}
	return h
}

func (h *history) say(format string, args ...any) {
	h.steps = append(h.steps, fmt.Sprintf(format, args...))
}

func (h *history) wrong(format string, args ...any) {
	h.Helper()
	for _, s := range h.steps[max(0, len(h.steps)-40):] {
		h.Log(s)
	}
	for _, a := range h.b.sorted() {
		h.Logf("%s: %s begun %t inHand %t", a.key().name(), a.condition(), a.begun, a.inHand)
	}
	h.Fatalf(format, args...)
}

func (h *history) any(state ...State) *account {
	all := slices.DeleteFunc(h.b.sorted(), func(a *account) bool { return !slices.Contains(state, a.state) })
	if len(all) == 0 {
		return nil
	}
	return all[h.IntN(len(all))]
}

// thing is a function as the kernel makes it.
func (h *history) thing(k key) facts {
	h.index += 2
	return facts{Function: Function{
		Handle: k.Device.Port(uint32(h.index)), Kind: k.Kind, PF: k.PF, Number: k.Number, Bus: "pci", Device: k.name(), NUMA: -1,
		Representor: Link{fmt.Sprint("rep", h.index), h.index}, Netdev: Link{fmt.Sprint("end", h.index), h.index + 1},
	}}
}

func (h *history) appear(f facts) {
	h.exists[f.key()] = f
	h.b.appear(f)
}

func (h *history) vanish(k key) {
	delete(h.exists, k)
	delete(h.dirty, k)
	h.b.vanish(k)
	if k.Kind == SF && k.Device == nics[0] {
		h.freed[k.Number] = len(h.made)
	}
}

// step lets one thing happen.
func (h *history) step() {
	h.b.now += int64(h.IntN(3)) * int64(time.Second)
	switch h.IntN(13) {
	case 0: // a VF comes, or goes
		k := key{nics[h.IntN(2)], VF, 0, uint32(h.IntN(5))}
		if _, ok := h.exists[k]; ok && h.IntN(4) == 0 {
			h.say("vanish %s", k.name())
			h.vanish(k)
		} else if !ok {
			h.say("appear %s", k.name())
			h.appear(h.thing(k))
		}
	case 1: // an SF is deleted by somebody, or the NIC is reset
		if a := h.any(Free, Used, Resetting, Quarantined, Gone); a != nil && a.Kind == SF && h.IntN(3) == 0 {
			if _, ok := h.exists[a.key()]; ok {
				h.say("vanish %s", a.key().name())
				h.vanish(a.key())
			} else {
				h.say("appear %s again", a.key().name())
				h.appear(h.thing(a.key()))
			}
		}
	case 2: // a netdev leaves the host, or comes back
		if a := h.any(Free, Used, Resetting, Quarantined); a != nil {
			f, ok := h.exists[a.key()]
			if !ok {
				return
			}
			if f.Netdev.Index != 0 && (a.state == Used || h.IntN(10) == 0) {
				f.Netdev = Link{}
			} else {
				f.Netdev = Link{"back", f.Representor.Index + 1}
			}
			h.say("netdev of %s is %v", a.key().name(), f.Netdev)
			h.appear(f)
		}
	case 3, 4, 5:
		h.acquire()
	case 6, 7:
		h.release()
	case 8, 9, 10:
		h.work(nics[h.IntN(2)])
	case 11:
		if a := h.any(Quarantined); a != nil {
			e := []event{retried, removed}[h.IntN(2)]
			if e == removed && a.Kind == VF {
				e = retried
			}
			h.say("%s %s", e, a.key().name())
			h.b.move(a, e)
		}
	case 12: // who waits gives up
		for owner := range h.waits {
			h.say("abandon %s", owner)
			h.b.abandon(owner)
			delete(h.waits, owner)
			break
		}
	}
}

func (h *history) acquire() {
	h.owners++
	r := Request{Owner: fmt.Sprint("o", h.owners), Pool: []string{"", "a-vf", "b-vf", "c-sf", "d-sf", "e"}[h.IntN(6)]}
	if h.IntN(4) == 0 {
		r.Kinds = []Kind{SF, VF}
	}
	if h.IntN(6) == 0 {
		if a := h.any(States()...); a != nil {
			r.Device = a.Device
		}
	}
	var a *account
	var err error
	h.notMore(func() { a, err = h.b.acquire(r, func(devlink.Handle) error { return nil }) })
	h.say("acquire %+v: %v", r, err)
	switch {
	case err != nil:
		if h.b.owners[r.Owner] != nil {
			h.wrong("%s was refused, but has something", r.Owner)
		}
		if reason.Of(err) == reason.Internal {
			h.wrong("acquire %+v: %v", r, err)
		}
	case a.state == Warming:
		h.waits[r.Owner] = true
	default:
		h.got(a)
	}
}

// got notes what somebody was given, which must be nobody else's, clean, and a use of its own.
func (h *history) got(a *account) {
	f := a.Function
	for other, g := range h.has {
		if g.key() == f.key() {
			h.wrong("%s was given %s, which %s has", a.owner, f.Name(), other)
		}
	}
	e, ok := h.exists[f.key()]
	switch {
	case !ok || e.Netdev.Index == 0:
		h.wrong("%s was given %s, which is not there", a.owner, f.Name())
	case h.dirty[f.key()]:
		h.wrong("%s was given %s, which was not reset", a.owner, f.Name())
	case f.Generation <= h.last:
		h.wrong("%s is use %d after use %d", f.Name(), f.Generation, h.last)
	}
	if _, owed := h.b.owed[f.key()]; owed || f.Before != (Before{}) {
		h.wrong("%s was given %s, of which something has to be restored", a.owner, f.Name())
	}
	a.Before.Netdev = "before" // as captured
	h.last, h.has[a.owner], h.dirty[f.key()] = f.Generation, f, true
}

func (h *history) release() {
	if len(h.has) == 0 {
		return
	}
	names := slices.Sorted(maps.Keys(h.has))
	owner := names[h.IntN(len(names))]
	f := h.has[owner]
	if _, _, err := h.b.release(f, "nobody"); err == nil && h.b.accounts[f.key()] != nil {
		h.wrong("nobody could release %s", f.Name())
	}
	early := f
	early.Generation--
	if _, wait, err := h.b.release(early, owner); err == nil && wait {
		h.wrong("an earlier use of %s was released", f.Name())
	}
	a, wait, err := h.b.release(f, owner)
	h.say("release %s of %s: %t, %v", f.Name(), owner, wait, err)
	if err != nil {
		h.wrong("release %s: %v", f.Name(), err)
	}
	if wait && a.state != Resetting {
		h.wrong("%s is %s after its release", f.Name(), a.state)
	}
	delete(h.has, owner)
	if _, wait, err := h.b.release(f, owner); err != nil || wait && a.state != Resetting {
		h.wrong("release %s again: %t, %v", f.Name(), wait, err)
	}
}

// work does what a worker does: everything that there is to do, with a driver that fails now and then.
func (h *history) work(d devlink.Handle) {
	h.notMore(func() { h.b.fill(d) })
	h.watermarks(d)
	for range 1 + h.IntN(4) {
		a, t := h.b.todo(d)
		if a == nil {
			return
		}
		k := a.key()
		fails := h.IntN(5) == 0
		h.say("%v %s fails %t", t, k.name(), fails)
		switch {
		case t == toReset && (fails || a.Netdev.Index == 0):
			h.b.quarantine(a, reason.FunctionNotRestored, "it fails")
		case t == toReset:
			delete(h.dirty, k)
			h.b.move(a, verified)
		case t == toMake:
			if d == nics[0] {
				h.rotation(k.Number)
			}
			if fails {
				delete(h.waits, a.owner)
				h.b.unmade(a, reason.DeviceFailed, "it fails", h.b.now+int64(h.IntN(3))*int64(time.Second))
				return
			}
			owner := a.owner
			if h.IntN(2) == 0 { // the event is faster than the answer
				h.appear(h.thing(k))
				a.begun = true
				h.b.appear(h.exists[k])
			} else {
				a.begun = true
				h.appear(h.thing(k))
			}
			if owner != "" {
				delete(h.waits, owner)
				if a.state != Used || a.owner != owner {
					h.wrong("%s was made for %s, and is %s", k.name(), owner, a.condition())
				}
				h.got(a)
			}
		case t == toEnable:
			delete(h.waits, a.owner)
			h.b.quarantine(a, reason.FunctionNotReady, "it fails")
		case t == toRemove && fails:
			a.begun = true
			h.b.quarantine(a, reason.DeviceFailed, "it fails")
		case t == toRemove:
			a.begun = true
			h.vanish(k)
		}
	}
}

// watermarks hold after the pools of a device were filled.
func (h *history) watermarks(d devlink.Handle) {
	for _, p := range h.b.pools {
		if p.Kind != SF || p.device != d || !h.b.settled {
			continue
		}
		counts := map[State]int{}
		coming := 0
		for _, a := range h.b.accounts {
			if a.pool == p {
				counts[a.state]++
				if a.mayCome() {
					coming++
				}
			}
		}
		total := p.total(counts)
		switch {
		case counts[Free] > p.MaxWarm:
			h.wrong("pool %s has %d free", p.Name, counts[Free])
		case counts[Free]+coming < p.MinWarm && total < p.Max && h.b.now >= p.until && total+counts[Gone] < len(p.numbers.order):
			h.wrong("pool %s has %d free and %d coming of %v", p.Name, counts[Free], coming, counts)
		}
	}
}

// rotation: a number is tried again only after most of the others.
func (h *history) rotation(n uint32) {
	h.made = append(h.made, n)
	if at, ok := h.freed[n]; ok && len(h.made)-at < 4 {
		h.wrong("sfnum %d was deleted, and taken again at once", n)
	}
}

// laws hold after each step.
func (h *history) laws() {
	owners := map[string]key{}
	for k, a := range h.b.accounts {
		if k != a.key() {
			h.wrong("the account of %s is at %s", a.key().name(), k.name())
		}
		switch a.state {
		case Used, Gone:
			if a.owner == "" {
				h.wrong("%s is %s, but nobody's", k.name(), a.state)
			}
		case Free, Quarantined, Removing, Unmanaged, Unknown:
			if a.owner != "" {
				h.wrong("%s is %s, but %s's", k.name(), a.state, a.owner)
			}
		case Warming, Resetting, nowhere:
		}
		if (a.state == Unmanaged) != (a.pool == nil && a.owner == "") && a.state != Resetting && a.state != Quarantined {
			h.wrong("%s is %s in pool %q", k.name(), a.state, a.Pool)
		}
		if a.state == Quarantined && a.reason == "" {
			h.wrong("%s is quarantined for no reason", k.name())
		}
		if a.owner == "" {
			continue
		}
		if other, ok := owners[a.owner]; ok {
			h.wrong("%s has %s and %s", a.owner, k.name(), other.name())
		}
		owners[a.owner] = k
		if h.b.owners[a.owner] != a {
			h.wrong("%s does not have %s, which is its", a.owner, k.name())
		}
	}
	if len(owners) != len(h.b.owners) {
		h.wrong("%d owners have functions, %d are noted", len(owners), len(h.b.owners))
	}
	for k := range h.b.owed {
		if a := h.b.accounts[k]; a == nil || a.state != Quarantined && a.state != Resetting && a.state != Removing {
			h.wrong("%s has to be restored, but is in no state for that", k.name())
		}
	}
	for owner, f := range h.has {
		if a := h.b.owners[owner]; a == nil || a.key() != f.key() || a.Generation != f.Generation || a.state != Used && a.state != Gone {
			h.wrong("%s lost %s", owner, f.Name())
		}
	}
}

// notMore fails the test if f opened accounts of SFs in a pool that has as many as it may have.
func (h *history) notMore(f func()) {
	count := func() map[*poolBook]int {
		n := map[*poolBook]int{}
		for _, p := range h.b.pools {
			counts := map[State]int{}
			for _, a := range h.b.accounts {
				if a.pool == p {
					counts[a.state]++
				}
			}
			n[p] = p.total(counts)
		}
		return n
	}
	before := count()
	f()
	for p, n := range count() {
		if p.Kind == SF && n > before[p] && n > p.Max {
			h.wrong("pool %s had %d, and has %d", p.Name, before[p], n)
		}
	}
}

// Whatever happens, in whatever order: no function has two owners, none is given away that was not reset, watermarks and the rotation of
// sfnums hold, and what was given is not lost.
func TestBookHistories(t *testing.T) {
	for range 300 {
		seed := rand.Uint64()
		h := newHistory(t, seed)
		h.say("seed %d", seed)
		for range 10 { // before Reconciled: what was there is found and claimed, in any order
			k := key{nics[h.IntN(2)], []Kind{VF, SF}[h.IntN(2)], 0, uint32(h.IntN(4))}
			if k.Kind == SF {
				k.Number += DefaultFirstSF
			}
			if h.IntN(2) == 0 {
				f := h.thing(k)
				f.unborn = k.Kind == SF && h.IntN(3) == 0
				h.appear(f)
				h.dirty[k] = true
			} else {
				h.owners++
				owner, f := fmt.Sprint("o", h.owners), h.thing(k).Function
				f.Generation = uint64(100 + h.owners)
				if err := h.b.claim(f, owner); err == nil {
					h.say("claim %s %s", k.name(), owner)
					h.has[owner], h.last = f, max(h.last, f.Generation)
				}
			}
			if a, _ := h.b.todo(nics[0]); a != nil || h.b.fill(nics[0]) {
				h.wrong("something is to be done before all claims are in")
			}
			h.laws()
		}
		h.b.settle()
		for range 400 {
			h.step()
			h.laws()
		}
		h.end()
	}
}

// end lets everybody give everything back, and everything succeed: all functions of pools are free then.
func (h *history) end() {
	h.b.now += int64(time.Hour)
	for owner := range h.waits {
		h.b.abandon(owner)
	}
	for len(h.has) > 0 {
		h.release()
	}
	for _, a := range h.b.sorted() {
		if f, ok := h.exists[a.key()]; ok {
			f.Netdev = Link{"back", f.Representor.Index + 1}
			h.b.appear(f)
		}
		if a.state == Quarantined {
			h.b.move(a, retried)
		}
	}
	for _, d := range nics {
		for range 100 {
			h.b.fill(d)
			a, t := h.b.todo(d)
			if a == nil {
				break
			}
			switch t {
			case toReset:
				h.b.move(a, verified)
			case toMake, toEnable:
				a.begun = true
				h.appear(h.thing(a.key()))
			case toRemove:
				a.begun = true
				h.vanish(a.key())
			}
		}
	}
	for _, a := range h.b.sorted() {
		if a.state != Free && a.state != Unmanaged {
			h.wrong("in the end %s is %s", a.key().name(), a.condition())
		}
	}
	for _, p := range h.b.pools {
		free := 0
		for _, a := range h.b.accounts {
			if a.pool == p {
				free++
			}
		}
		if p.Kind == SF && (free < p.MinWarm || free > p.MaxWarm) {
			h.wrong("in the end pool %s has %d", p.Name, free)
		}
	}
}

func TestRotation(t *testing.T) {
	r := newRotation(100, 6)
	used := map[uint32]bool{}
	take := func() uint32 {
		n, ok := r.take(func(n uint32) bool { return used[n] })
		if !ok {
			t.Fatalf("no number of %v is free", used)
		}
		used[n] = true
		return n
	}
	// One that is deleted comes last.
	for want := range uint32(20) {
		n := take()
		if n != 100+want%6 {
			t.Fatalf("the number after %d others is %d, want %d", want, n, 100+want%6)
		}
		delete(used, n)
	}
	for range 6 {
		take()
	}
	if n, ok := r.take(func(n uint32) bool { return used[n] }); ok {
		t.Errorf("%d is free, although all are used", n)
	}
	// Also if it is the oldest.
	clear(used)
	r = newRotation(100, 6)
	take()
	r.saw(100)
	delete(used, 100)
	for range 5 {
		take()
	}
	if n := take(); n != 100 {
		t.Errorf("the number after five others is %d, want 100, which was deleted before them", n)
	}
	// After a start the numbers that exist come last too.
	r = newRotation(100, 6)
	for _, n := range []uint32{102, 101, 99, 106} {
		r.saw(n)
	}
	for i, want := range []uint32{100, 103, 104, 105, 102, 101, 100} {
		if n, ok := r.take(func(uint32) bool { return false }); !ok || n != want {
			t.Errorf("number %d is %d, want %d", i, n, want)
		}
	}
}

// All states are reached, and left: there is no trap, and nothing that is never used.
func TestTransitions(t *testing.T) {
	reached := map[State]bool{nowhere: true}
	for _, moves := range transitions {
		for _, to := range moves {
			reached[to] = true
		}
	}
	reached[Warming], reached[Unmanaged] = true, true // by begin, and by home
	for _, s := range States() {
		if !reached[s] || len(transitions[s]) == 0 {
			t.Errorf("%s: reached %t, left by %v", s, reached[s], transitions[s])
		}
		if to, ok := next(s, vanishes); ok && to != nowhere && to != Gone {
			t.Errorf("%s, which vanishes, is %s", s, to)
		}
	}
	for s, moves := range transitions {
		if _, ok := moves[acquired]; ok && s != Free && s != Warming {
			t.Errorf("%s can be acquired", s)
		}
		for e, to := range moves {
			if to == Free && e != verified && e != ready {
				t.Errorf("%s is free after %s", s, e)
			}
		}
	}
}
