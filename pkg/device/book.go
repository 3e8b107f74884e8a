package device

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/offloadd/offloadd/pkg/devlink"
	"github.com/offloadd/offloadd/pkg/reason"
)

// A key is what a function is called in each of its lives: the port of a VF has another index after a reset.
type key struct {
	Device devlink.Handle
	Kind   Kind
	PF     uint16
	Number uint32
}

func compareKeys(a, b key) int {
	return cmp.Or(cmp.Compare(a.Device.Bus, b.Device.Bus), cmp.Compare(a.Device.Dev, b.Device.Dev), cmp.Compare(a.PF, b.PF),
		cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Number, b.Number))
}

func (f Function) key() key { return key{f.Handle.Handle, f.Kind, f.PF, f.Number} }

// An account is what is known of a function, and whose it is.
type account struct {
	Function // Generation is that of the last use, Before what has to be restored
	state    State
	owner    string // of Used, Resetting and Gone; of Warming: who is waiting for it
	pool     *poolBook
	reason   reason.Reason
	message  string
	since    int64 // Unix time in nanoseconds

	plugged bool // the representor is in a bridge
	unborn  bool // an SF that nobody has activated
	hwAddr  *MAC // of the port's function while nobody has it; nil: the driver does not say

	begun   bool  // of Warming and Removing: the kernel was asked
	inHand  bool  // somebody is working on it
	enabled bool  // the device of an SF was told to have a netdev
	later   int64 // of Resetting and Warming: nothing to do before this time, in Unix time in nanoseconds
}

// A poolBook is a pool, and where it is.
type poolBook struct {
	Pool
	device  devlink.Handle // the zero Handle: there is no such device
	vfs     []span
	numbers rotation

	// Why no SF is made for now, and until when, in Unix time in nanoseconds.
	reason  reason.Reason
	message string
	until   int64
}

// A book says who has which function. Nothing in it acts, waits, or knows the time.
type book struct {
	pools      []*poolBook
	accounts   map[key]*account
	owners     map[string]*account
	generation uint64 // of the last use
	settled    bool   // all claims are in
	now        int64  // Unix time in nanoseconds, set by who calls

	// What has to be restored of functions that nobody has any more, because it could not be, until it is.
	owed        map[key]Function
	owedChanged bool // since who writes it down has looked
}

// newBook opens a book. Generations are larger than the one given.
func newBook(pools []Pool, generation uint64) *book {
	b := &book{accounts: map[key]*account{}, owners: map[string]*account{}, generation: generation, owed: map[key]Function{}}
	for _, p := range pools {
		pb := &poolBook{Pool: p}
		if p.Kind == SF {
			s := p.numbers()
			pb.numbers = newRotation(s.first, s.last-s.first+1)
		}
		pb.vfs, _ = parseNumbers(p.VFs)
		b.pools = append(b.pools, pb)
	}
	return b
}

// move lets an event happen to a function, and reports whether it can.
func (b *book) move(a *account, e event) bool {
	to, ok := next(a.state, e)
	if !ok {
		return false
	}
	to = home(to, a.pool != nil)
	a.state, a.since, a.begun, a.later = to, b.now, false, 0
	if to != Quarantined && to != Gone {
		a.reason, a.message = "", ""
	}
	switch to {
	case Quarantined: // what has to be restored stays known
		b.disown(a)
	case Free, Unmanaged, Removing, Unknown:
		b.disown(a)
		a.Before, a.RDMA = Before{}, ""
	case nowhere:
		b.drop(a)
	case Warming, Used, Resetting, Gone:
	}
	if e == verified || e == claimed || to == nowhere { // a function that comes again is as new
		b.owe(a, false)
	}
	return true
}

// owe notes what has to be restored of a function that nobody has, or that there is nothing any more.
func (b *book) owe(a *account, is bool) {
	_, was := b.owed[a.key()]
	switch {
	case is:
		b.owed[a.key()] = a.Function
	default:
		delete(b.owed, a.key())
	}
	b.owedChanged = b.owedChanged || is || was
}

// owing are the functions of which something has to be restored, in order.
func (b *book) owing() []Function {
	all := slices.AppendSeq([]Function{}, maps.Values(b.owed))
	slices.SortFunc(all, func(x, y Function) int { return compareKeys(x.key(), y.key()) })
	return all
}

// drop closes an account. The number of an SF rests.
func (b *book) drop(a *account) {
	b.disown(a)
	delete(b.accounts, a.key())
	if a.pool != nil && a.Kind == SF {
		a.pool.numbers.saw(a.Number)
	}
}

func (b *book) own(a *account, owner string) {
	a.owner = owner
	b.owners[owner] = a
}

func (b *book) disown(a *account) {
	if a.owner != "" {
		delete(b.owners, a.owner)
		a.owner = ""
	}
}

// quarantine keeps a function from everybody. If it was being made for somebody, they have to ask for another.
func (b *book) quarantine(a *account, r reason.Reason, message string) {
	if b.move(a, refused) {
		a.reason, a.message = r, message
		if a.Before.Netdev != "" {
			b.owe(a, true)
		}
	}
}

// withoutRDMA are the functions of a device that are quarantined because their RDMA devices are away: else they are whole.
func (b *book) withoutRDMA(h devlink.Handle) []Function {
	var all []Function
	for _, a := range b.sorted() {
		if a.Handle.Handle == h && a.state == Quarantined && a.reason == reason.FunctionElsewhere && a.RDMA != "" && a.whole() {
			all = append(all, a.Function)
		}
	}
	return all
}

// poolOf finds the pool of a function: the one that names it, or one of all VFs.
func (b *book) poolOf(k key) *poolBook {
	var rest *poolBook
	for _, p := range b.pools {
		switch {
		case p.device != k.Device || p.Kind != k.Kind:
		case k.Kind == SF:
			if p.PF == k.PF && p.numbers.contains(k.Number) {
				return p
			}
		case contains(p.vfs, k.Number):
			return p
		case p.VFs == "" && rest == nil:
			rest = p
		}
	}
	return rest
}

// place says which device a pool is on, whose functions become the pool's.
func (b *book) place(p *poolBook, h devlink.Handle) {
	if p.device == h {
		return
	}
	p.device = h
	for _, a := range b.sorted() {
		a.pool = b.poolOf(a.key())
		switch {
		case a.pool != nil && a.state == Unmanaged:
			b.move(a, vanishes)
			b.appear(facts{a.Function, a.plugged, a.hwAddr, a.unborn})
		case a.pool == nil && (a.state == Free || a.state == Unknown):
			a.state = Unmanaged
		}
		a.Pool = ""
		if a.pool != nil {
			a.Pool = a.pool.Name
		}
	}
}

func (b *book) sorted() []*account {
	return slices.SortedFunc(maps.Values(b.accounts), func(x, y *account) int { return compareKeys(x.key(), y.key()) })
}

// open starts an account for a function that there is none of.
func (b *book) open(f Function) *account {
	a := &account{Function: f, pool: b.poolOf(f.key())}
	a.Generation, a.Before, a.Pool = 0, Before{}, ""
	if a.pool != nil {
		a.Pool = a.pool.Name
		if f.Kind == SF {
			a.pool.numbers.saw(f.Number)
		}
	}
	b.accounts[a.key()] = a
	return a
}

// appear notes a function that there is, or what has changed about it.
func (b *book) appear(f facts) {
	a := b.accounts[f.key()]
	if a == nil {
		a = b.open(f.Function)
	}
	back := a.Netdev.Index == 0 && f.Netdev.Index != 0 || a.Representor.Index == 0 && f.Representor.Index != 0 || a.plugged && !f.plugged
	a.Handle, a.Bus, a.Device, a.Representor, a.Netdev, a.NUMA = f.Handle, f.Bus, f.Device, f.Representor, f.Netdev, f.NUMA
	a.plugged, a.unborn = f.plugged, f.unborn
	if a.state == Warming {
		a.hwAddr = f.hwAddr
	}
	b.move(a, appears)
	whole := f.whole()
	switch {
	case a.state == Unknown && b.settled:
		b.resolve(a)
	case a.state == Warming && a.begun && whole && a.owner != "":
		b.use(a, a.owner)
	case a.state == Warming && a.begun && whole:
		b.move(a, ready)
	case a.state == Free && !whole:
		b.quarantine(a, reason.FunctionElsewhere, a.missing())
	case a.state == Free && a.plugged:
		b.quarantine(a, reason.RepresentorInUse, a.inBridge())
	case a.state == Quarantined && back:
		b.move(a, retried)
	case a.state == Resetting && back:
		a.later = 0
	}
}

// whole reports whether the host has all of a function but, perhaps, an RDMA device.
func (f Function) whole() bool {
	return f.Netdev.Index != 0 && f.Representor.Index != 0 && f.Device != ""
}

// missing says what keeps a function from being whole.
func (a *account) missing() string {
	switch {
	case a.Device == "":
		return "no device has been made of the function"
	case a.Representor.Index == 0:
		return "there is no representor in the host's network namespace"
	}
	return "the network device of " + a.Device + " is not in the host's network namespace, or has no driver"
}

func (a *account) inBridge() string {
	return "the representor " + a.Representor.Name + " is in a bridge, but the function is nobody's"
}

// vanish notes that a function is no more.
func (b *book) vanish(k key) {
	a := b.accounts[k]
	if a == nil || a.state == Warming && !a.begun {
		return
	}
	a.Handle.Index, a.Device, a.Representor, a.Netdev = 0, "", Link{}, Link{}
	b.move(a, vanishes)
	if a.state == Gone {
		a.reason, a.message = reason.DeviceGone, a.Name()+" no longer exists"
	}
}

// leave notes that a device is no more, and with it what is being made there.
func (b *book) leave(h devlink.Handle) {
	for _, a := range b.sorted() {
		switch {
		case a.Handle.Handle != h:
		case a.state == Warming && !a.begun:
			b.drop(a)
		default:
			b.vanish(a.key())
		}
	}
}

// use gives a function to somebody.
func (b *book) use(a *account, owner string) {
	if !b.move(a, acquired) {
		panic("device: " + string(a.state) + " is not a state in which a function can be acquired")
	}
	b.own(a, owner)
	b.generation++
	a.Generation = b.generation
	a.Before = Before{HWAddr: a.hwAddr}
}

// claim notes what somebody has since before the start.
func (b *book) claim(f Function, owner string) error {
	a := b.accounts[f.key()]
	if has := b.owners[owner]; has != nil && has != a {
		return reason.Errorf(reason.DeviceBusy, "device claim %s: %s has %s already", f.Name(), owner, has.Name())
	}
	if a != nil && a.owner == owner && a.Generation == f.Generation {
		return nil
	}
	if a == nil {
		a = b.open(f)
		a.Handle.Index, a.Device, a.Representor, a.Netdev = 0, "", Link{}, Link{}
	}
	if !b.move(a, claimed) {
		return reason.Errorf(reason.DeviceBusy, "device claim %s: it is %s", a.Name(), a.condition())
	}
	if a.state == Gone {
		a.reason, a.message = reason.DeviceGone, a.Name()+" does not exist"
	}
	b.own(a, owner)
	a.Generation, a.Before, a.RDMA = f.Generation, f.Before, f.RDMA
	b.generation = max(b.generation, f.Generation)
	return nil
}

// settle ends the time of claims: what nobody has claimed is nobody's.
func (b *book) settle() {
	b.settled = true
	for _, a := range b.sorted() {
		if a.state == Unknown {
			b.resolve(a)
		}
	}
}

// resolve decides about a function that nobody has claimed. It is verified; an SF that is inactive is what is left of one that was being
// made, and is deleted.
func (b *book) resolve(a *account) {
	if a.unborn {
		b.move(a, removed)
		return
	}
	if b.move(a, reconciled) {
		owed := b.owed[a.key()]
		a.Before, a.RDMA = owed.Before, owed.RDMA
	}
}

// condition is a state in the words of errors.
func (a *account) condition() string {
	s := strings.ToLower(string(a.state))
	if a.owner != "" {
		s += " by " + a.owner
	}
	if a.message != "" {
		s += ": " + a.message
	}
	return s
}

// acquire gives somebody a function that suits, or begins to make one: its state is Warming then, and Used when it is there. A device
// of which usable is not nil is passed over.
func (b *book) acquire(r Request, usable func(devlink.Handle) error) (*account, error) {
	if r.Owner == "" {
		return nil, reason.Errorf(reason.Internal, "device acquire: no owner")
	}
	if a := b.owners[r.Owner]; a != nil {
		switch {
		case a.state != Used && a.state != Warming:
			return nil, reason.Errorf(reason.DeviceBusy, "device acquire for %s: it has %s, which is %s", r.Owner, a.Name(), a.condition())
		case !r.suits(a):
			return nil, reason.Errorf(reason.DeviceBusy, "device acquire for %s: it has %s already, which is another than it asks for", r.Owner, a.Name())
		}
		return a, nil
	}
	return b.choose(r, usable, true)
}

// choose finds a function that suits. With take it is given away, or begun to be made; without nothing changes, and one that would have to
// be made has no number.
func (b *book) choose(r Request, usable func(devlink.Handle) error, take bool) (*account, error) {
	pools := b.candidates(r)
	if len(pools) == 0 {
		return nil, r.noPool()
	}
	var refusals []error
	waits := false
	for _, p := range pools {
		a, err := b.from(p, r, usable, take)
		if err == nil {
			return a, nil
		}
		waits = waits || errors.Is(err, errComing)
		refusals = append(refusals, err)
	}
	if waits {
		return nil, fmt.Errorf("%w%w", errComing, worst(refusals))
	}
	return nil, worst(refusals)
}

// errComing is in a refusal that may be none in a moment: a device is being read, or a function verified, and likely to be free then.
var errComing = errors.New("")

// worst is the refusal to tell about if there are several: that of the first pool, together with those of the others.
func worst(refusals []error) error {
	if len(refusals) == 1 {
		return refusals[0]
	}
	var texts []string
	for _, err := range refusals {
		texts = append(texts, err.Error())
	}
	e := reason.Errorf(reason.Of(refusals[0]), "%s", strings.Join(texts, "; "))
	if first := (*reason.Error)(nil); errors.As(refusals[0], &first) {
		e.Metadata = first.Metadata
	}
	return e
}

func (r Request) noPool() error {
	kinds := ""
	if len(r.Kinds) > 0 {
		kinds = fmt.Sprintf(" of kind %v", r.Kinds)
	}
	if r.Pool == "" {
		return reason.Errorf(reason.PoolNotFound, "device acquire for %s: there is no pool%s", r.Owner, kinds)
	}
	return reason.Errorf(reason.PoolNotFound, "device acquire for %s: there is no pool %q%s", r.Owner, r.Pool, kinds).With("pool", r.Pool)
}

func (r Request) suits(a *account) bool {
	return (r.Pool == "" || a.Pool == r.Pool) && (len(r.Kinds) == 0 || slices.Contains(r.Kinds, a.Kind)) && (r.Device == "" || a.Device == r.Device)
}

// candidates are the pools that a request may be served from, in order of its preference, and then of their names.
func (b *book) candidates(r Request) []*poolBook {
	kinds := r.Kinds
	if len(kinds) == 0 {
		kinds = []Kind{VF, SF}
	}
	var found []*poolBook
	for _, k := range kinds {
		for _, p := range b.pools {
			if p.Kind == k && (r.Pool == "" || r.Pool == p.Name) {
				found = append(found, p)
			}
		}
	}
	return found
}

// from chooses a function of a pool: one that is free, whose last use is the longest ago; or one that is coming; or a new one.
func (b *book) from(p *poolBook, r Request, usable func(devlink.Handle) error, take bool) (*account, error) {
	refuse := func(code reason.Reason, format string, args ...any) *reason.Error {
		return reason.Errorf(code, "device pool %s: %s", p.Name, fmt.Sprintf(format, args...)).With("pool", p.Name)
	}
	if p.device == (devlink.Handle{}) {
		if err := usable(p.device); err != nil {
			return nil, err
		}
		return nil, refuse(reason.DeviceNotFound, "there is no device %s with an embedded switch", p.Device)
	}
	if err := usable(p.device); err != nil {
		return nil, err
	}
	if name := r.Attributes.ofVF(); p.Kind == SF && name != "" {
		return nil, refuse(reason.FeatureUnsupported, "%s: SFs do not have it", name).With("attribute", name)
	}
	var free, coming *account
	counts := map[State]int{}
	for _, a := range b.accounts {
		if a.pool != p {
			continue
		}
		counts[a.state]++
		if r.Device != "" && a.Device != r.Device {
			continue
		}
		switch {
		case r.Device != "" && a.state == Quarantined:
			return nil, refuse(reason.FunctionQuarantined, "%s is %s", a.Name(), a.condition())
		case r.Device != "" && a.state == Resetting:
			return nil, fmt.Errorf("%w%w", errComing, refuse(reason.DeviceBusy, "%s is %s", a.Name(), a.condition()))
		case r.Device != "" && a.state != Free:
			return nil, refuse(reason.DeviceBusy, "%s is %s", a.Name(), a.condition())
		case a.state == Free && (free == nil || a.before(free)):
			free = a
		case a.state == Warming && a.owner == "" && (coming == nil || a.since < coming.since || a.since == coming.since && a.before(coming)):
			coming = a
		}
	}
	switch {
	case free != nil:
		if take {
			b.use(free, r.Owner)
		}
		return free, nil
	case r.Device != "":
		return nil, refuse(reason.DeviceNotFound, "there is no %s", r.Device).With("device", r.Device)
	case coming != nil:
		if take {
			b.own(coming, r.Owner)
		}
		return coming, nil
	}
	if p.Kind == SF && p.total(counts) < p.Max {
		if p.reason != "" && b.now < p.until {
			return nil, refuse(p.reason, "%s", p.message)
		}
		if !take {
			return &account{Function: Function{Handle: p.device.Port(0), Kind: SF, PF: p.PF, Pool: p.Name, NUMA: -1}, state: Warming, pool: p}, nil
		}
		if a := b.begin(p); a != nil {
			b.own(a, r.Owner)
			return a, nil
		}
	}
	var has []string
	for _, s := range States() {
		if counts[s] > 0 {
			has = append(has, fmt.Sprintf("%d %s", counts[s], strings.ToLower(string(s))))
		}
	}
	if len(has) == 0 {
		has = []string{"it has none"}
	}
	err := refuse(reason.PoolExhausted, "no function is free: %s", strings.Join(has, ", "))
	if counts[Resetting] > 0 {
		return nil, fmt.Errorf("%w%w", errComing, err)
	}
	return nil, err
}

// before is the order in which functions are taken.
func (a *account) before(o *account) bool {
	return cmp.Or(cmp.Compare(a.Generation, o.Generation), compareKeys(a.key(), o.key())) < 0
}

// total counts the SFs that take a place of a pool: those that there are.
func (p *poolBook) total(counts map[State]int) int {
	n := 0
	for s, c := range counts {
		if s != Gone && s != Unmanaged {
			n += c
		}
	}
	return n
}

// begin opens the account of an SF that is to be made; nil if the pool has no number left.
func (b *book) begin(p *poolBook) *account {
	k := key{Device: p.device, Kind: SF, PF: p.PF}
	number, ok := p.numbers.take(func(n uint32) bool {
		k.Number = n
		return b.accounts[k] != nil
	})
	if !ok {
		return nil
	}
	a := &account{
		Function: Function{Handle: p.device.Port(0), Kind: SF, PF: p.PF, Number: number, Pool: p.Name, NUMA: -1},
		state:    Warming, pool: p, since: b.now,
	}
	b.accounts[a.key()] = a
	return a
}

// abandon takes an SF that is being made from somebody who waits no more. It goes on being made.
func (b *book) abandon(owner string) {
	if a := b.owners[owner]; a != nil && a.state == Warming {
		b.disown(a)
	}
}

// unmade closes the account of an SF that could not be made, and makes no more for its pool until a time.
func (b *book) unmade(a *account, r reason.Reason, message string, until int64) {
	a.pool.reason, a.pool.message, a.pool.until = r, message, until
	b.drop(a)
}

// giveUp takes back a function that nothing was done with. Its owner need not wait.
func (b *book) giveUp(a *account) {
	b.move(a, released)
	b.disown(a)
}

// release takes a function back. It is reset then. It reports false if there is nothing to wait for: the function is no longer the
// owner's.
func (b *book) release(f Function, owner string) (*account, bool, error) {
	a := b.accounts[f.key()]
	switch {
	case a == nil:
		return nil, false, nil
	case a.Generation > f.Generation && a.owner != "":
		return nil, false, reason.Errorf(reason.DeviceStaleOwner, "device release %s: use %d is over, it has been acquired again since: it is %s",
			f.Name(), f.Generation, a.condition()).With("owner", a.owner)
	case a.owner == "" || a.Generation != f.Generation:
		return nil, false, nil
	case a.owner != owner:
		return nil, false, reason.Errorf(reason.DeviceStaleOwner, "device release %s: it is not %s's, it is %s", f.Name(), owner, a.condition()).With("owner", a.owner)
	case a.state == Resetting:
		return a, true, nil
	}
	b.move(a, released)
	return a, a.state == Resetting, nil
}

// retry lets SFs be made again on a device that has changed.
func (b *book) retry(h devlink.Handle) {
	for _, p := range b.pools {
		if p.device == h {
			p.reason, p.message, p.until = "", "", 0
		}
	}
}

// fill does what the watermarks of the pools on a device ask for: it opens the accounts of SFs that are to be made, and lets those
// that are to be removed be Removing. It reports whether it did anything.
func (b *book) fill(h devlink.Handle) bool {
	if !b.settled {
		return false
	}
	did := false
	for _, p := range b.pools {
		if p.Kind != SF || p.device != h || h == (devlink.Handle{}) {
			continue
		}
		counts := map[State]int{}
		coming := 0
		var free []*account
		for _, a := range b.accounts {
			if a.pool != p {
				continue
			}
			counts[a.state]++
			switch {
			case a.state == Free:
				free = append(free, a)
			case a.mayCome():
				coming++
			}
		}
		if b.now >= p.until {
			p.reason, p.message = "", ""
			for range p.shortage(len(free), coming, p.total(counts)) {
				did = b.begin(p) != nil || did
			}
		}
		// Those that were used last: what there may be left of their last use is the youngest.
		slices.SortFunc(free, func(x, y *account) int {
			if x.before(y) {
				return 1
			}
			return -1
		})
		for _, a := range free[:p.surplus(len(free))] {
			did = b.move(a, removed) || did
		}
	}
	return did
}

// mayCome reports whether an SF may be free without anybody doing anything. One that has no netdev yet is counted as well: where they do not
// come, making more does not help.
func (a *account) mayCome() bool {
	return a.state == Resetting || a.state == Warming && a.owner == "" || a.state == Quarantined && a.reason == reason.FunctionNotReady
}

// A task is what is to be done with a function.
type task int

const (
	toReset task = iota + 1
	toMake
	toEnable
	toRemove
)

// todo is what is next to be done on a device: first what somebody waits for. The function is in the hand of the caller then.
func (b *book) todo(h devlink.Handle) (*account, task) {
	if !b.settled {
		return nil, 0
	}
	var found *account
	var does task
	for _, a := range b.accounts {
		var t task
		switch {
		case a.Handle.Handle != h || a.inHand || b.now < a.later:
		case a.state == Resetting:
			t = toReset
		case a.state == Warming && !a.begun:
			t = toMake
		case a.state == Warming: // for longer than it should take
			t = toEnable
		case a.state == Removing && !a.begun:
			t = toRemove
		}
		if t == 0 {
			continue
		}
		if found == nil || cmp.Or(
			-cmp.Compare(min(1, len(a.owner)), min(1, len(found.owner))), cmp.Compare(t, does),
			cmp.Compare(a.since, found.since), compareKeys(a.key(), found.key())) < 0 {
			found, does = a, t
		}
	}
	return found, does
}

// wakes is when there may be something to do on a device without anything happening, in Unix time in nanoseconds; 0: never.
func (b *book) wakes(h devlink.Handle) int64 {
	var at int64
	sooner := func(t int64) {
		if t > b.now && (at == 0 || t < at) {
			at = t
		}
	}
	for _, a := range b.accounts {
		if a.Handle.Handle == h {
			sooner(a.later)
		}
	}
	for _, p := range b.pools {
		if p.device == h {
			sooner(p.until)
		}
	}
	return at
}
