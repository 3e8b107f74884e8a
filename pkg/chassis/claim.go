package chassis

import (
	"slices"
	"strconv"

	"github.com/offloadd/offloadd/pkg/ovsdb/sbdb"
	"github.com/offloadd/offloadd/pkg/ovsdb/vswitchdb"
	"github.com/offloadd/offloadd/pkg/sb"
)

// A claimState is how far the claim of a port with an interface has come.
type claimState int

const (
	// claimed: the Southbound does not yet say that the port is here, or not all rows it needs have been seen.
	claimed claimState = iota
	// installFlows: the port is here, and its flows are on their way into the switch.
	installFlows
	// removeOld: the flows are in, and a stale mark on the interface has to go before the true one is set, so that
	// whoever waits for the mark sees it change.
	removeOld
	// markUp: the flows are in, and the databases are being told.
	markUp
	// settled: both databases say that the port works.
	settled
)

func (s claimState) String() string {
	return [...]string{"claimed", "install-flows", "remove-old", "mark-up", "settled"}[s]
}

// claimFacts are what a claim's progress depends on.
type claimFacts struct {
	here      bool // the Southbound says that the port is bound to this chassis
	known     bool // all rows that the port's flows are made of are known
	flows     bool // the flows of the turn in which the claim got to installFlows are installed
	installed bool // the interface is marked as installed
	up        bool // the Southbound says that the port is up, or never says
}

// next returns the state that follows from the facts; a state that stays is returned unchanged.
func (s claimState) next(f claimFacts) claimState {
	if !f.here {
		return claimed
	}
	switch s {
	case claimed:
		if f.known {
			return installFlows
		}
	case installFlows:
		switch {
		case f.flows && f.installed:
			return removeOld
		case f.flows:
			return markUp
		}
	case removeOld:
		if !f.installed {
			return markUp
		}
	case markUp:
		if f.up && f.installed {
			return settled
		}
	case settled:
		if !f.up || !f.installed {
			return claimed
		}
	}
	return s
}

// A claimant is what a claim is about. When any of it changes the claim starts anew.
type claimant struct {
	port, datapath sb.UUID
	iface          string // UUID
	role           role
}

// A claim is a port with an interface that is bound here, or is being bound.
type claim struct {
	claimant
	state claimState
	cond  uint64 // the turn of the conditions whose rows the port's flows need
	turn  uint64 // from installFlows on: the turn whose flows must be in
}

// claimInterval is how long a port is left to another chassis that took it, before it is claimed again,
// milliseconds. Two chassis that both have an interface for a port then fight slowly.
const claimInterval = 500

// claimAll moves every claim on, and writes what the databases do not say yet.
func (st *step) claimAll(bindings []binding) {
	claims := make(map[string]*claim, len(bindings))
	for _, b := range bindings {
		if b.iface == nil || b.parent != nil {
			st.bindFollower(b)
			continue
		}
		claims[b.port.Name] = st.advance(b, st.claims[b.port.Name])
	}
	st.claims = claims
	for name, at := range st.taken {
		if st.in.Now-at >= 5*claimInterval {
			delete(st.taken, name)
		}
	}
}

// advance moves the claim c of b on; c is nil for a new one.
func (st *step) advance(b binding, c *claim) *claim {
	facts := claimFacts{
		here:      holds(b.port, st.me.UUID, b.role),
		installed: isInstalled(b.iface),
		up:        b.role == additional || b.port.Up || !b.port.UpSet,
	}
	who := claimant{port: b.port.UUID, datapath: b.port.Datapath, iface: b.iface.UUID, role: b.role}
	if c == nil || c.claimant != who {
		c = &claim{claimant: who, cond: st.condTurn}
		if facts.here && facts.installed && facts.up {
			c.state = settled // an earlier run has done it all
		}
	}
	if !facts.here {
		c.cond = st.condTurn
	}
	for {
		facts.known = st.reflected > 0 && st.reflected >= c.cond
		facts.flows = c.state != claimed && st.in.InForce >= c.turn
		next := c.state.next(facts)
		if next == c.state {
			break
		}
		if next == installFlows {
			c.turn = st.in.Turn
		}
		c.state = next
	}

	working := c.state == markUp || c.state == settled
	st.writeBinding(b, working)
	switch {
	case working && !facts.installed:
		if st.ovs.setKeys(vswitchdb.InterfaceTable, b.iface.UUID, "external_ids", b.iface.ExternalIDs, map[string]string{
			keyInstalled: "true", keyInstalledTS: strconv.FormatInt(st.in.Now, 10),
		}) {
			st.tell("lport installed", "lport", b.port.Name, "iface", b.iface.Name)
		}
	case !working && facts.installed:
		st.unmark(b.iface)
	}
	return c
}

// bindFollower binds a port that has no flows of its own to wait for: a container port is up when its parent is, a
// port of the logical pipeline at once.
func (st *step) bindFollower(b binding) {
	up := true
	if b.parent != nil {
		if !b.parent.UpSet {
			up = b.port.Up
		} else {
			up = b.parent.Up && holds(b.parent, st.me.UUID, main)
		}
	}
	st.writeBinding(b, up)
}

// writeBinding makes the Southbound say that b is bound here, by which endpoint it is reached, and whether it is up.
func (st *step) writeBinding(b binding, up bool) {
	here := holds(b.port, st.me.UUID, b.role)
	if !here && !b.port.Chassis.IsZero() && b.port.Chassis != st.me.UUID && b.role == main {
		if at, ok := st.taken[b.port.Name]; ok && st.in.Now-at < claimInterval {
			st.wake(at + claimInterval)
			return
		}
	}
	set, add, remove := map[string]any{}, map[string]any{}, map[string]any{}
	self := Ref{UUID: st.me.UUID.String()}
	encap := st.findEncap(b.iface)
	switch b.role {
	case main:
		if !here {
			set["chassis"] = self
		}
		if encap != b.port.Encap {
			set["encap"] = optionalRef(encap)
		}
		if b.port.UpSet && b.port.Up != up {
			set["up"] = up
		}
		if slices.Contains(b.port.AdditionalChassis, st.me.UUID) {
			remove["additional_chassis"] = []Ref{self}
			if stale := st.ownEncaps(b.port.AdditionalEncap); len(stale) > 0 {
				remove["additional_encap"] = stale
			}
		}
	case additional:
		if !here {
			add["additional_chassis"] = []Ref{self}
		}
		if !encap.IsZero() && !slices.Contains(b.port.AdditionalEncap, encap) {
			add["additional_encap"] = []Ref{{UUID: encap.String()}}
		}
		if b.port.Chassis == st.me.UUID {
			set["chassis"] = nil
			if !b.port.Encap.IsZero() {
				set["encap"] = nil
			}
		}
	case none:
		panic("chassis: binding without a role")
	}
	sent := false
	if len(set) > 0 {
		sent = st.sb.add(Op{Kind: Update, Table: sbdb.PortBindingTable, UUID: b.port.UUID.String(), Set: set})
	}
	if len(add) > 0 || len(remove) > 0 {
		sent = st.sb.add(Op{Kind: Mutate, Table: sbdb.PortBindingTable, UUID: b.port.UUID.String(), Add: add, Remove: remove}) || sent
	}
	if !sent {
		return
	}
	if !here {
		st.taken[b.port.Name] = st.in.Now
		from := ""
		if other := st.in.SB.Chassis[b.port.Chassis]; other != nil {
			from = other.Name
		}
		st.tell("lport claimed", "lport", b.port.Name, "from", from)
	}
	if v, ok := set["up"]; ok {
		st.tell("lport up changed", "lport", b.port.Name, "up", strconv.FormatBool(v == true))
	}
}

// ownEncaps returns those of encaps that are endpoints of this chassis.
func (st *step) ownEncaps(encaps []sb.UUID) []Ref {
	var own []Ref
	for _, uuid := range encaps {
		if e := st.in.SB.Encaps[uuid]; e != nil && e.ChassisName == st.me.Name {
			own = append(own, Ref{UUID: uuid.String()})
		}
	}
	slices.SortFunc(own, compareRefs)
	return own
}

// releaseAll gives up the ports that the Southbound says are here and that do not belong here, and takes the mark
// off interfaces that carry no claimed port.
func (st *step) releaseAll(bindings []binding, at sites) {
	if !st.everKnown {
		return
	}
	roles := make(map[sb.UUID]role, len(bindings))
	for _, b := range bindings {
		roles[b.port.UUID] = b.role
	}
	var leaving []*sb.Port
	for uuid, port := range st.in.SB.Ports {
		if roles[uuid] == none && (holds(port, st.me.UUID, main) || holds(port, st.me.UUID, additional)) &&
			(st.serves(port.Type) || port.Type == sb.Localport) {
			leaving = append(leaving, port)
		}
	}
	slices.SortFunc(leaving, func(a, b *sb.Port) int { return compareUUIDs(a.UUID, b.UUID) })
	for _, port := range leaving {
		if st.release(port) {
			st.tell("lport released", "lport", port.Name)
		}
	}
	for _, i := range at.installed {
		id := i.ExternalIDs[keyIfaceID]
		carries := st.claims[id] != nil && st.claims[id].iface == i.UUID
		if !carries && (st.known || id == "" || st.in.SB.PortByName(id) != nil) {
			st.unmark(i)
		}
	}
}

// release writes that a port is not bound here any more, if it still is when the write happens.
func (st *step) release(port *sb.Port) bool {
	self := Ref{UUID: st.me.UUID.String()}
	sent := false
	if port.Chassis == st.me.UUID {
		set := map[string]any{"chassis": nil}
		if !port.Encap.IsZero() {
			set["encap"] = nil
		}
		if port.Up {
			set["up"] = false
		}
		sent = st.sb.add(Op{
			Kind: Update, Table: sbdb.PortBindingTable, UUID: port.UUID.String(),
			Where: map[string]any{"chassis": self}, Set: set,
		})
	}
	if slices.Contains(port.AdditionalChassis, st.me.UUID) {
		remove := map[string]any{"additional_chassis": []Ref{self}}
		if own := st.ownEncaps(port.AdditionalEncap); len(own) > 0 {
			remove["additional_encap"] = own
		}
		sent = st.sb.add(Op{Kind: Mutate, Table: sbdb.PortBindingTable, UUID: port.UUID.String(), Remove: remove}) || sent
	}
	return sent
}

// unmark takes ovn-installed off an interface. The time of the last installation stays.
func (st *step) unmark(i *vswitchdb.Interface) {
	st.ovs.dropKeys(vswitchdb.InterfaceTable, i.UUID, "external_ids", i.ExternalIDs, keyInstalled)
}

func optionalRef(uuid sb.UUID) any {
	if uuid.IsZero() {
		return nil
	}
	return Ref{UUID: uuid.String()}
}
