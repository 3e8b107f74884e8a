package tc

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/offloadd/offloadd/pkg/ir"
)

// Rules are the requirements of Check that depend on where the filters go. The zero value is for the kernel's software path.
type Rules struct {
	// WholeLabels forbids conditions on a part of ct_label. mlx5 compares an identifier of the masked value with that of the
	// whole label, so that such a filter is passed over whenever another bit is set.
	WholeLabels bool
}

// maxGotos is the number of times that a packet can go to another chain; after that it is dropped (net/sched/cls_api.c,
// max_reclassify_loop).
const maxGotos = 16

// maxErrors bounds what Check reports.
const maxErrors = 20

// Check says why filters, which are all those of one target, might not do what they say, if that can be: the kernel ignores
// conditions that lack another one, lets packets fall off the end of a chain, and has no order within a pref. The error
// joins at most 20 errors, each of which names a filter or a chain and the rule in words.
func Check(filters []Filter) error { return Rules{}.Check(filters) }

// Check is Check of the filter alone.
func (f *Filter) Check() error { return Rules{}.CheckFilter(f) }

// Check is the function Check under the rules r. It takes time linear in the number of filters, times that of the masks that
// are used in the same pref.
func (r Rules) Check(filters []Filter) error {
	var errs []error
	for i := range filters {
		if err := r.CheckFilter(&filters[i]); err != nil {
			errs = append(errs, err)
			if len(errs) == maxErrors {
				return errors.Join(errs...)
			}
		}
	}
	errs = append(errs, checkChains(filters)...)
	errs = append(errs, checkPrefs(filters)...)
	return errors.Join(errs[:min(len(errs), maxErrors)]...)
}

// CheckFilter checks what a filter shows alone.
func (r Rules) CheckFilter(f *Filter) error {
	for _, check := range []func(f *Filter) error{checkKey, r.checkMatch, checkActions, checkConntrack, checkEdits, checkVerdict, checkEncoding} {
		if err := check(f); err != nil {
			return fmt.Errorf("tc filter %v: %w", f.Key(), err)
		}
	}
	return nil
}

func checkKey(f *Filter) error {
	switch {
	case f.Chain > MaxChain:
		return fmt.Errorf("chain is more than %d", MaxChain)
	case f.Pref == 0:
		return errors.New("pref is 0: the kernel would choose one")
	case f.Handle == 0:
		return errors.New("handle is 0: the kernel would choose one")
	case f.Protocol == 0:
		return errors.New("no protocol")
	case f.Flags&(InHW|NotInHW) != 0:
		return errors.New("in_hw and not_in_hw are for the kernel to set")
	case f.Flags&SkipHW != 0 && f.Flags&SkipSW != 0:
		return errors.New("skip_hw and skip_sw: nobody would run it")
	}
	return nil
}

// A need is what a field presupposes. The kernel does not look at a key whose need is not a condition of the same filter: the
// filter then matches too much (net/sched/cls_flower.c, fl_set_key).
type need struct {
	types []uint16 // the EtherType is one of these
	proto uint64   // 0: any
}

var needs = func() map[ir.Field]need {
	ip := []uint16{ProtocolIPv4, ProtocolIPv6}
	m := map[ir.Field]need{}
	set := func(n need, fields ...ir.Field) {
		for _, f := range fields {
			m[f] = n
		}
	}
	set(need{types: []uint16{ProtocolIPv4}}, ir.IPSrc, ir.IPDst)
	set(need{types: []uint16{ProtocolIPv6}}, ir.IPv6Src, ir.IPv6Dst)
	set(need{types: ip}, ir.IPProto, ir.IPDSCP, ir.IPECN, ir.IPTTL, ir.IPFrag)
	set(need{types: ip, proto: 6}, ir.TCPSrc, ir.TCPDst, ir.TCPFlags)
	set(need{types: ip, proto: 17}, ir.UDPSrc, ir.UDPDst)
	set(need{types: ip, proto: 132}, ir.SCTPSrc, ir.SCTPDst)
	set(need{types: []uint16{ProtocolIPv4}, proto: 1}, ir.ICMPType, ir.ICMPCode)
	set(need{types: []uint16{ProtocolIPv6}, proto: 58}, ir.ICMPv6Type, ir.ICMPv6Code)
	set(need{types: []uint16{ProtocolARP}}, ir.ARPOp, ir.ARPSPA, ir.ARPTPA, ir.ARPSHA, ir.ARPTHA)
	return m
}()

func (r Rules) checkMatch(f *Filter) error {
	proto, hasProto := f.exact(ir.IPProto)
	typ := f.etherType()
	for i, t := range f.Match {
		if i > 0 && f.Match[i-1].Field >= t.Field || t.Mask.IsZero() || !t.Value.AndNot(t.Mask).IsZero() || t.Mask.BitLen() > t.Field.Bits() {
			return fmt.Errorf("match is not in order at %s", t.Field)
		}
		n, ok := needs[t.Field]
		switch {
		case !ok:
		case !slices.Contains(n.types, typ):
			return fmt.Errorf("%s in a filter for protocol %s: the kernel would ignore it", t.Field, protocolName(f.Protocol))
		case n.proto != 0 && (!hasProto || proto != n.proto):
			return fmt.Errorf("%s without nw_proto=%d: the kernel would ignore it", t.Field, n.proto)
		}
	}
	if _, ok := f.Match.Term(ir.ConjID); ok {
		return errors.New("conj_id: a conjunctive match has to be expanded")
	}
	_, s4 := f.Match.Term(ir.TunSrc)
	_, d4 := f.Match.Term(ir.TunDst)
	_, s6 := f.Match.Term(ir.TunIPv6Src)
	_, d6 := f.Match.Term(ir.TunIPv6Dst)
	if (s4 || d4) && (s6 || d6) {
		return errors.New("tunnel addresses of both IPv4 and IPv6: the kernel would ignore the latter")
	}
	if t, ok := f.Match.Term(ir.CTLabel); ok && r.WholeLabels && t.Mask != ir.CTLabel.Ones() {
		return fmt.Errorf("ct_label=%v/%v: the hardware compares whole labels only", t.Value, t.Mask)
	}
	return checkState(f.Match)
}

// Bits of ct_state in ir, as Open vSwitch has them.
const (
	stateNew = 1 << iota
	stateEst
	stateRel
	stateRpl
	stateInv
	stateTrk
)

// checkState refuses what the kernel does: sets of bits that no packet has (fl_validate_ct_state).
func checkState(m ir.Match) error {
	t, ok := m.Term(ir.CTState)
	if !ok {
		return nil
	}
	v := t.Value.Lo
	switch {
	case v != 0 && v&stateTrk == 0:
		return errors.New("ct_state has bits that are set, but not +trk: only tracked packets have any")
	case v&stateNew != 0 && v&stateEst != 0:
		return errors.New("ct_state +new+est: no packet has both")
	case v&stateNew != 0 && v&stateRpl != 0:
		return errors.New("ct_state +new+rpl: no packet has both")
	case v&stateInv != 0 && v&^(stateInv|stateTrk) != 0:
		return errors.New("ct_state +inv with other bits: an invalid packet has no others")
	}
	return nil
}

// checkActions looks at the order of actions and at their arguments.
func checkActions(f *Filter) error {
	if len(f.Actions) > maxActions {
		return fmt.Errorf("%d actions: the kernel takes %d", len(f.Actions), maxActions)
	}
	for i, a := range f.Actions {
		if verdict(a) != (i == len(f.Actions)-1) {
			if verdict(a) {
				return fmt.Errorf("action %d (%s) is not the last: the rest would not run", i+1, f.actionArgs(a, nil))
			}
			return fmt.Errorf("the last action (%s) gives no verdict: the packet would go on with the next pref", f.actionArgs(a, nil))
		}
		if err := checkArguments(a); err != nil {
			return fmt.Errorf("action %d (%s): %w", i+1, f.actionArgs(a, nil), err)
		}
	}
	if len(f.Actions) == 0 {
		return errors.New("no actions: the packet would go on with the next pref")
	}
	return nil
}

// verdict reports whether a decides what becomes of the packet.
func verdict(a Action) bool {
	switch a := a.(type) {
	case Goto, Pass, Drop, Trap:
		return true
	case Mirred:
		return !a.Mirror
	}
	return false
}

func checkArguments(a Action) error {
	switch a := a.(type) {
	case CT:
		return a.check()
	case Pedit:
		for i, e := range a.Edits {
			switch {
			case e.Mask.IsZero() || !e.Value.AndNot(e.Mask).IsZero() || e.Mask.BitLen() > e.Field.Bits():
				return fmt.Errorf("edit of %s: no mask, or a value outside of it", e.Field)
			case e.Add && (e.Field != ir.IPTTL || e.Mask != e.Field.Ones()):
				return fmt.Errorf("addition to %s: only the TTL as a whole can be added to", e.Field)
			case slices.ContainsFunc(a.Edits[:i], func(b Edit) bool { return b.Field == e.Field }):
				return fmt.Errorf("two edits of %s", e.Field)
			}
		}
	case CSum:
		if a == (CSum{}) {
			return errors.New("no checksum")
		}
	case TunnelSet:
		return a.check()
	case VLAN:
		switch {
		case a.Op < VLANPop || a.Op > VLANModify:
			return errors.New("no such operation")
		case a.Op == VLANPop && a != VLAN{Op: VLANPop}:
			return errors.New("pop has no arguments")
		case a.Op != VLANPop && a.Protocol != ProtocolVLAN && a.Protocol != ProtocolQinQ:
			return errors.New("protocol is neither 802.1q nor 802.1ad")
		case a.ID > vlanIDMask || a.Prio > 7:
			return errors.New("id of more than 12 bits, or priority of more than 3")
		}
	case SkbEdit:
		if a.Mark&^a.MarkMask != 0 || a.MarkMask == 0 && !a.Host {
			return errors.New("nothing to edit, or a mark outside its mask")
		}
	case Mirred:
		if a.Ifindex <= 0 {
			return errors.New("no device")
		}
	case Goto:
		if a.Chain > MaxChain {
			return fmt.Errorf("chain is more than %d", MaxChain)
		}
	}
	return nil
}

func (a CT) check() error {
	addr := a.AddrMin.IsValid() || a.AddrMax.IsValid()
	switch {
	case a.Clear && a != CT{Clear: true}:
		return errors.New("clear goes with nothing else")
	case a.Force && !a.Commit:
		return errors.New("force without commit")
	case !a.Commit && (a.MarkMask != 0 || !a.LabelMask.IsZero()):
		return errors.New("mark or label without commit: the kernel would not set them")
	case a.Mark&^a.MarkMask != 0 || !a.Label.AndNot(a.LabelMask).IsZero():
		return errors.New("mark or label outside its mask")
	case a.Src && a.Dst:
		return errors.New("translation of both source and destination")
	case (a.Src || a.Dst) && (!a.NAT || !a.Commit):
		return errors.New("a source or destination without nat and commit")
	case a.NAT && a.Commit && !a.Src && !a.Dst:
		return errors.New("nat of a new connection without a source or destination")
	case (addr || a.PortMin|a.PortMax != 0) && !a.Src && !a.Dst:
		return errors.New("a range without a source or destination")
	case (a.Src || a.Dst) && !addr:
		return errors.New("nat without an address")
	case addr && (a.AddrMin.Is4() != a.AddrMax.Is4() || !a.AddrMin.IsValid() || !a.AddrMax.IsValid() || a.AddrMax.Less(a.AddrMin) || a.AddrMin.Zone() != ""):
		return errors.New("addresses are no range")
	case a.PortMax < a.PortMin || a.PortMin == 0 && a.PortMax != 0:
		return errors.New("ports are no range")
	}
	return nil
}

func (a TunnelSet) check() error {
	switch {
	case !a.Src.IsValid() || !a.Dst.IsValid() || a.Src.Is4() != a.Dst.Is4() || a.Src.Zone() != "" || a.Dst.Zone() != "":
		return errors.New("source and destination are not addresses of one family")
	case a.ID >= 1<<24:
		return errors.New("id of more than 24 bits")
	}
	for _, o := range a.Options {
		if len(o.Data)%4 != 0 || len(o.Data) == 0 || len(o.Data) > 124 {
			return fmt.Errorf("geneve option with %d bytes of data", len(o.Data))
		}
	}
	return nil
}

// tuple are the fields that identify a connection.
func tuple(f ir.Field) bool {
	return slices.Contains([]ir.Field{ir.IPSrc, ir.IPDst, ir.IPv6Src, ir.IPv6Dst, ir.TCPSrc, ir.TCPDst, ir.UDPSrc, ir.UDPDst}, f)
}

// checkConntrack: hardware runs the lookup before everything else in the filter, once, and adds "not tracked" to filters that
// change what identifies a connection.
func checkConntrack(f *Filter) error {
	var lookups int
	var changed, cleared bool
	for i, a := range f.Actions {
		switch a := a.(type) {
		case CT:
			if a.Clear {
				cleared = true
				continue
			}
			cleared = false
			if lookups++; lookups > 1 {
				return fmt.Errorf("action %d: a second ct in one filter: use another chain", i+1)
			}
			if changed {
				return fmt.Errorf("action %d: ct after a change of the packet, which hardware would look up unchanged: use another chain", i+1)
			}
			if typ := f.etherType(); typ != ProtocolIPv4 && typ != ProtocolIPv6 {
				return fmt.Errorf("action %d: ct in a filter for protocol %s: the kernel drops what is not IP", i+1, protocolName(f.Protocol))
			}
		case VLAN, CSum:
			changed = true
		case Pedit:
			changed = true
			for _, e := range a.Edits {
				if tuple(e.Field) && (!cleared || lookups > 0) {
					return fmt.Errorf("action %d: edit of %s without ct clear before it, or with another ct in the filter: the packet would keep a connection that it is not part of", i+1, e.Field)
				}
			}
		}
	}
	return nil
}

// checkEdits: pedit does not mend checksums.
func checkEdits(f *Filter) error {
	typ := f.etherType()
	proto, hasProto := f.exact(ir.IPProto)
	for i, a := range f.Actions {
		p, ok := a.(Pedit)
		if !ok {
			continue
		}
		var want CSum
		for _, e := range p.Edits {
			if _, err := placeOf(e.Field, f); err != nil {
				return fmt.Errorf("action %d: %w", i+1, err)
			}
			if typ == ProtocolIPv4 && (e.Field == ir.IPSrc || e.Field == ir.IPDst || e.Field == ir.IPTTL || e.Field == ir.IPDSCP) {
				want.IPv4 = true
			}
			if !tuple(e.Field) {
				continue
			}
			if !hasProto {
				return fmt.Errorf("action %d: edit of %s without nw_proto: the checksum above IP cannot be mended", i+1, e.Field)
			}
			switch proto {
			case 6:
				want.TCP = true
			case 17:
				want.UDP = true
			case 58:
				want.ICMP = true
			}
			tcp, udp := e.Field == ir.TCPSrc || e.Field == ir.TCPDst, e.Field == ir.UDPSrc || e.Field == ir.UDPDst
			if tcp && proto != 6 || udp && proto != 17 {
				return fmt.Errorf("action %d: edit of %s in a filter for nw_proto=%d", i+1, e.Field, proto)
			}
		}
		var have CSum
		for _, a := range f.Actions[i:] {
			if c, ok := a.(CSum); ok {
				have = CSum{have.IPv4 || c.IPv4, have.ICMP || c.ICMP, false, have.TCP || c.TCP, have.UDP || c.UDP, false, false}
			}
		}
		if missing := want.bits() &^ have.bits(); missing != 0 {
			return fmt.Errorf("action %d: pedit without the checksum that it breaks (csum %#x)", i+1, missing)
		}
	}
	return nil
}

// checkVerdict looks at the last action together with the others.
func checkVerdict(f *Filter) error {
	last := f.Actions[len(f.Actions)-1]
	_, isGoto := last.(Goto)
	_, isPass := last.(Pass)
	_, isTrap := last.(Trap)
	if isTrap && f.Flags&SkipSW == 0 {
		return errors.New("trap without skip_sw: in software the packet is lost")
	}
	var tracked bool
	for i, a := range f.Actions[:len(f.Actions)-1] {
		if _, ok := a.(TunnelUnset); ok && isGoto {
			return errors.New("tunnel_key unset and goto: the tunnel is to be left in the last filter")
		}
		if !isPass {
			continue
		}
		if c, ok := a.(CT); ok && !c.Commit && !c.NAT {
			tracked = !c.Clear
			continue
		}
		return fmt.Errorf("action %d (%s) before pass: who takes the packet from here must find it as it came", i+1, f.actionArgs(a, nil))
	}
	if tracked {
		return errors.New("ct before pass: who takes the packet from here must not find it tracked (ct clear)")
	}
	return nil
}

// checkEncoding finds what flower has no words for.
func checkEncoding(f *Filter) error {
	if f.Indev != "" && !validName(f.Indev) {
		return fmt.Errorf("indev %q: not the name of a device", f.Indev)
	}
	_, err := appendFilter(nil, Target{}, f)
	return err
}

func validName(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c > '~' || c == '/' || c == ':' {
			return false
		}
	}
	return len(s) < 16 && s != "." && s != ".."
}

// checkChains: no packet falls off the end of a chain, goes in circles, or goes too often.
func checkChains(filters []Filter) []error {
	type chain struct {
		last  *Filter // the one with the largest pref
		gotos []uint32
		from  *Filter // one that goes here
	}
	chains := map[uint32]*chain{}
	at := func(n uint32) *chain {
		c := chains[n]
		if c == nil {
			c = &chain{}
			chains[n] = c
		}
		return c
	}
	for i := range filters {
		f := &filters[i]
		c := at(f.Chain)
		if c.last == nil || f.Pref > c.last.Pref || f.Pref == c.last.Pref && catchAll(f) {
			c.last = f
		}
		if len(f.Actions) == 0 {
			continue
		}
		if g, ok := f.Actions[len(f.Actions)-1].(Goto); ok {
			if !slices.Contains(c.gotos, g.Chain) || len(c.gotos) > 64 {
				c.gotos = append(c.gotos, g.Chain)
			}
			at(g.Chain).from = f
		}
	}
	var numbers []uint32
	for n := range chains {
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	var errs []error
	for _, n := range numbers {
		c := chains[n]
		if n == 0 || c.from == nil {
			continue
		}
		if c.last == nil {
			errs = append(errs, fmt.Errorf("tc filter %v: goto chain %d, which has no filters", c.from.Key(), n))
		} else if !catchAll(c.last) {
			errs = append(errs, fmt.Errorf("tc chain %d: its last filter (%v) is not for all packets: what it does not match would fall off the end", n, c.last.Key()))
		}
	}
	// depth is the number of gotos that can follow in a chain; the state of the walk is -1 while a chain is being visited.
	depth := map[uint32]int{}
	var path []uint32
	var visit func(n uint32) (int, error)
	visit = func(n uint32) (int, error) {
		if d, ok := depth[n]; ok {
			if d < 0 {
				i := slices.Index(path, n)
				return 0, fmt.Errorf("tc chain %d: gotos go in a circle: %v", n, append(slices.Clone(path[i:]), n))
			}
			return d, nil
		}
		depth[n] = -1
		path = append(path, n)
		deepest := 0
		for _, to := range chains[n].gotos {
			d, err := visit(to)
			if err != nil {
				return 0, err
			}
			deepest = max(deepest, d+1)
		}
		path = path[:len(path)-1]
		depth[n] = deepest
		return deepest, nil
	}
	for _, n := range numbers {
		d, err := visit(n)
		if err != nil {
			return append(errs, err)
		}
		if d > maxGotos && chains[n].from == nil {
			errs = append(errs, fmt.Errorf("tc chain %d: a packet can go to %d chains from here: the kernel drops it after %d", n, d, maxGotos))
		}
	}
	return errs
}

// catchAll reports whether f takes every packet that reaches it, in software.
func catchAll(f *Filter) bool {
	return f.Protocol == ProtocolAll && len(f.Match) == 0 && f.Indev == "" && f.EncDstPort == 0 && f.Flags&SkipSW == 0
}

// A chainPref is a chain and a pref.
type chainPref struct {
	chain uint32
	pref  uint16
}

// checkPrefs: filters of one pref have one protocol and different keys, and no packet can match two of them that do different
// things.
func checkPrefs(filters []Filter) []error {
	groups := map[chainPref][]*Filter{}
	for i := range filters {
		at := chainPref{filters[i].Chain, filters[i].Pref}
		groups[at] = append(groups[at], &filters[i])
	}
	order := make([]chainPref, 0, len(groups))
	for at := range groups {
		order = append(order, at)
	}
	slices.SortFunc(order, func(a, b chainPref) int { return cmp.Or(cmp.Compare(a.chain, b.chain), cmp.Compare(a.pref, b.pref)) })
	var errs []error
	for _, at := range order {
		if err := checkPref(groups[at]); err != nil {
			if errs = append(errs, err); len(errs) == maxErrors {
				break
			}
		}
	}
	return errs
}

func checkPref(group []*Filter) error {
	handles := make(map[uint32]bool, len(group))
	for _, f := range group {
		if f.Protocol != group[0].Protocol {
			return fmt.Errorf("tc filter %v: protocol %s, but %v has %s: a pref has one", f.Key(), protocolName(f.Protocol), group[0].Key(), protocolName(group[0].Protocol))
		}
		if handles[f.Handle] {
			return fmt.Errorf("tc filter %v: there are two of this key", f.Key())
		}
		handles[f.Handle] = true
	}
	var classes []*maskClass
	byMask := map[string]*maskClass{}
	var buf []byte
	for _, f := range group {
		terms := matchTerms(f)
		buf = appendMasks(buf[:0], terms)
		c := byMask[string(buf)]
		if c == nil {
			c = &maskClass{masks: slices.Clone(terms), values: make(map[string]*Filter)}
			byMask[string(buf)] = c
			classes = append(classes, c)
		}
		buf = appendValues(buf[:0], terms, c.masks)
		if g := c.values[string(buf)]; g != nil {
			return fmt.Errorf("tc filter %v: its conditions are those of %v: the kernel refuses it", f.Key(), g.Key())
		}
		c.values[string(buf)] = f
		c.filters = append(c.filters, f)
	}
	for i, a := range classes {
		for _, b := range classes[:i] {
			if err := checkClasses(b, a); err != nil {
				return err
			}
		}
	}
	return nil
}

// A maskClass is the filters of one pref that have the same masks.
type maskClass struct {
	masks   []ir.Term // of one of them
	values  map[string]*Filter
	filters []*Filter
}

// Conditions that are no terms of a match, as fields of their own. No field has these numbers.
const (
	fieldIndev ir.Field = 254 - iota
	fieldEncDstPort
)

// matchTerms returns all conditions of f, in ascending order of fields.
func matchTerms(f *Filter) []ir.Term {
	terms := slices.Clip([]ir.Term(f.Match))
	if f.EncDstPort != 0 {
		terms = append(terms, ir.Term{Field: fieldEncDstPort, Value: ir.U64(uint64(f.EncDstPort)), Mask: ir.Ones(16)})
	}
	if f.Indev != "" {
		name := []byte(f.Indev)
		terms = append(terms, ir.Term{Field: fieldIndev, Value: ir.FromBytes(name[:min(len(name), 16)]), Mask: ir.Ones(128)})
	}
	return terms
}

func appendU128(b []byte, v ir.U128) []byte { return be.AppendUint64(be.AppendUint64(b, v.Hi), v.Lo) }

func appendMasks(b []byte, terms []ir.Term) []byte {
	for _, t := range terms {
		b = appendU128(append(b, byte(t.Field)), t.Mask)
	}
	return b
}

// appendValues appends the bits of terms that masks, which are on a subset of their fields, select.
func appendValues(b []byte, terms, masks []ir.Term) []byte {
	i := 0
	for _, m := range masks {
		for terms[i].Field != m.Field {
			i++
		}
		b = appendU128(b, terms[i].Value.And(m.Mask))
	}
	return b
}

// common returns the masks that two classes have in common.
func common(a, b []ir.Term) []ir.Term {
	var out []ir.Term
	for i, j := 0, 0; i < len(a) && j < len(b); {
		switch {
		case a[i].Field < b[j].Field:
			i++
		case a[i].Field > b[j].Field:
			j++
		default:
			if m := a[i].Mask.And(b[j].Mask); !m.IsZero() {
				out = append(out, ir.Term{Field: a[i].Field, Mask: m})
			}
			i++
			j++
		}
	}
	return out
}

// checkClasses: two filters of different masks can match the same packet exactly if they agree on the bits that both look at.
// Filters are compared by what is left of them on those bits, so that it takes one pass over each class.
func checkClasses(a, b *maskClass) error {
	masks := common(a.masks, b.masks)
	// seen has for what is left the filters of a that do different things, of which two are enough.
	seen := make(map[string][2]*Filter, len(a.filters))
	var buf []byte
	for _, f := range a.filters {
		buf = appendValues(buf[:0], matchTerms(f), masks)
		s, ok := seen[string(buf)]
		switch {
		case !ok:
			seen[string(buf)] = [2]*Filter{f, nil}
		case s[1] == nil && !sameEffect(s[0], f):
			s[1] = f
			seen[string(buf)] = s
		}
	}
	for _, g := range b.filters {
		buf = appendValues(buf[:0], matchTerms(g), masks)
		for _, f := range seen[string(buf)] {
			if f != nil && !sameEffect(f, g) {
				return fmt.Errorf("tc filter %v: a packet can match %v too, which does something else, and in one pref there is no order", g.Key(), f.Key())
			}
		}
	}
	return nil
}

func sameEffect(f, g *Filter) bool {
	return f.Flags == g.Flags && slices.EqualFunc(f.Actions, g.Actions, sameAction)
}

func sameAction(a, b Action) bool {
	switch a := a.(type) {
	case Pedit:
		b, ok := b.(Pedit)
		return ok && slices.Equal(a.Edits, b.Edits)
	case TunnelSet:
		return reflect.DeepEqual(a, b)
	}
	if _, ok := b.(Pedit); ok {
		return false
	}
	if _, ok := b.(TunnelSet); ok {
		return false
	}
	return a == b
}
