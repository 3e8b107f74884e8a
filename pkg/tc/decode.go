package tc

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/offloadd/offloadd/pkg/ir"
)

// Installed is a filter as the kernel describes it, in an answer to a dump or in a notification.
type Installed struct {
	Target Target

	// Kind is the classifier, "flower" for those that Filter can describe.
	Kind string

	// Filter is what could be understood. It is the whole truth if Kind is "flower", Terse is false, and Foreign is empty. Its
	// Flags have InHW or NotInHW. A Handle of 0 means all filters of the chain and pref.
	Filter Filter

	// Terse says that the kernel has left out conditions and the parameters of actions.
	Terse bool

	// Actions has the state of each action, in order; also of those that Filter cannot describe.
	Actions []ActionState

	// InHWCount is the number of devices that have the filter.
	InHWCount uint32

	// Foreign says in words what there is that Filter has no words for, so that it is not ours. At most maxForeign.
	Foreign []string
}

// ActionState is what the kernel knows of one action.
type ActionState struct {
	Kind      string
	Index     uint32 // the number of the action among those of its kind
	Ref, Bind int32
	InHWCount uint32 // of devices that have it

	Packets, Bytes     uint64 // in all
	HWPackets, HWBytes uint64 // those of them that the hardware counted
	Drops, Overlimits  uint32
	Requeues           uint32
	Qlen, Backlog      uint32

	// What follows is missing in terse dumps, and 0 if it has not happened.
	Installed, LastUsed, FirstUsed, Expires Ticks // ago; Expires: from now

	// NoPercpu says that the counters are shared by all CPUs; HasHWStats that HWStats are the bits of what the hardware was
	// asked to count (TCA_ACT_HW_STATS_*).
	NoPercpu            bool
	HasHWStats, HasUsed bool
	HWStats, UsedStats  uint32
}

// Ticks are hundredths of a second (USER_HZ).
type Ticks uint64

// Packets returns the number of packets and bytes that ran f's actions. Every packet that matches runs the first action.
func (in *Installed) Packets() (packets, bytes uint64) {
	if len(in.Actions) == 0 {
		return 0, 0
	}
	return in.Actions[0].Packets, in.Actions[0].Bytes
}

// maxForeign bounds Installed.Foreign.
const maxForeign = 32

func (in *Installed) foreign(format string, args ...any) {
	if len(in.Foreign) < maxForeign {
		in.Foreign = append(in.Foreign, fmt.Sprintf(format, args...))
	}
}

// Decode reads the payload of a message RTM_NEWTFILTER, RTM_DELTFILTER or RTM_GETTFILTER. It fails only if there is no struct
// tcmsg. Decode of what AppendFilter has encoded gives the target and the filter back, if the filter passes Check and its
// tunnel metadata is TunMetadata0. Nothing of b is kept.
func Decode(b []byte) (*Installed, error) {
	if len(b) < tcmsgSize {
		return nil, fmt.Errorf("tc decode: message of %d bytes", len(b))
	}
	in := &Installed{}
	f := &in.Filter
	ifindex, parent, info := ne.Uint32(b[4:]), ne.Uint32(b[12:]), ne.Uint32(b[16:])
	f.Handle, f.Pref, f.Protocol = ne.Uint32(b[8:]), uint16(info>>16), hostToBE16(uint16(info))
	if ifindex == magicBlock {
		in.Target.Block = parent
	} else {
		in.Target.Ifindex = int(int32(ifindex))
		if parent != parentIngress {
			in.foreign("parent %#x", parent)
		}
	}
	var options []byte
	var some bool
	if !walk(b[tcmsgSize:], func(typ uint16, data []byte) {
		switch typ {
		case tcaKind:
			in.Kind = text(data)
		case tcaChain:
			if len(data) == 4 {
				f.Chain = ne.Uint32(data)
			}
		case tcaOptions:
			options, some = data, true
		}
	}) {
		in.foreign("malformed message")
	}
	switch {
	case in.Kind != kindFlower:
		in.foreign("classifier %q", in.Kind)
	case some:
		in.options(options)
	}
	return in, nil
}

// maxText bounds names from outside.
const maxText = 64

// text returns a string with a 0 at the end.
func text(b []byte) string {
	for i, c := range b {
		if c == 0 {
			b = b[:i]
			break
		}
	}
	return strings.ToValidUTF8(string(b[:min(len(b), maxText)]), "?")
}

// options reads TCA_OPTIONS of flower.
func (in *Installed) options(b []byte) {
	f := &in.Filter
	attrs := map[uint16][]byte{}
	if !walk(b, func(typ uint16, data []byte) { attrs[typ] = data }) {
		in.foreign("malformed options")
	}
	// The order of types makes the result the same each time.
	for typ := uint16(0); typ < 1024 && len(attrs) > 0; typ++ {
		data, ok := attrs[typ]
		if !ok {
			continue
		}
		in.option(typ, data, attrs)
	}
	var v vlanTag
	v.tagged = f.Protocol == ProtocolVLAN || f.Protocol == ProtocolQinQ
	if d := attrs[flowerVLANID]; len(d) == 2 {
		v.hasID, v.id = true, ne.Uint16(d)
	}
	if d := attrs[flowerVLANPrio]; len(d) == 1 {
		v.hasPrio, v.prio = true, d[0]
	}
	if d := attrs[flowerVLANType]; len(d) == 2 {
		v.hasType, v.typ = true, be.Uint16(d)
	}
	if d := attrs[flowerNumVLANs]; len(d) == 1 {
		if v.none = d[0] == 0; !v.none {
			in.foreign("num_of_vlans %d", d[0])
		}
	}
	f.Match = v.terms(f.Match)
	// For tagged packets the kernel gives back the type after the tag.
	if d := attrs[flowerEthType]; len(d) == 2 && be.Uint16(d) != f.Protocol && (!v.tagged || !v.hasType || be.Uint16(d) != v.typ) {
		in.foreign("eth_type %04x", be.Uint16(d))
	}
}

// option reads one attribute of flower. all has those that belong to it.
func (in *Installed) option(typ uint16, data []byte, all map[uint16][]byte) {
	f := &in.Filter
	switch typ {
	case flowerIndev:
		f.Indev = text(data)
	case flowerAct:
		in.actions(data)
	case flowerFlags:
		if len(data) == 4 {
			f.Flags = Flags(ne.Uint32(data))
		}
	case flowerInHWCount:
		if len(data) == 4 {
			in.InHWCount = ne.Uint32(data)
		}
	case flowerEncDstPort:
		mask, ok := all[flowerEncDstPort+1]
		if len(data) != 2 || ok && (len(mask) != 2 || be.Uint16(mask) != 0xffff) || be.Uint16(data) == 0 {
			in.foreign("enc_dst_port %x/%x", data, mask)
			return
		}
		f.EncDstPort = be.Uint16(data)
	case flowerEncOpts:
		in.encOpts(data, all[flowerEncOpts+1])
	case flowerEncDstPort + 1, flowerEncOpts + 1, flowerEthType, flowerVLANID, flowerVLANPrio, flowerVLANType, flowerNumVLANs:
	default:
		if attr, ok := attrOfMask[typ]; ok {
			if all[attr] == nil {
				in.foreign("mask %d without a value", typ)
			}
			return
		}
		ks := keyOfAttr[typ]
		if ks == nil {
			in.foreign("key %d", typ)
			return
		}
		mask, masked := all[ks[0].mask]
		if ks[0].mask == noMask {
			masked = false
		}
		in.key(ks, data, mask, masked)
	}
}

// key reads the value of a key, of which ks are the parts.
func (in *Installed) key(ks []*key, value, mask []byte, masked bool) {
	k := ks[0]
	if len(value) != k.size || masked && len(mask) != k.size {
		in.foreign("%s of %d bytes", k.name, len(value))
		return
	}
	v, m := u128Of(value, k.host), ir.Ones(8*k.size)
	if masked {
		m = u128Of(mask, k.host)
	}
	for _, k := range ks {
		t, ok := k.term(v, m)
		switch {
		case !ok:
			in.foreign("%s %v/%v", k.name, v, m)
		case !t.Mask.IsZero():
			if next, ok := in.Filter.Match.With(t.Field, t.Value, t.Mask); ok {
				in.Filter.Match = next
			}
		}
	}
}

// encOpts reads the condition on Geneve options.
func (in *Installed) encOpts(data, mask []byte) {
	key, ok := geneveOptions(data)
	masks, ok2 := geneveOptions(mask)
	if mask == nil && len(key) == 1 {
		masks, ok2 = []GeneveOption{{0xffff, 0xff, "\xff\xff\xff\xff"}}, true
	}
	if !ok || !ok2 || len(key) != 1 || len(masks) != 1 || len(key[0].Data) != 4 || len(masks[0].Data) != 4 ||
		key[0].Class != OptionClass || key[0].Type != OptionType || masks[0].Class != 0xffff || masks[0].Type != 0xff {
		in.foreign("enc_opts %x/%x", data[:min(len(data), maxText)], mask[:min(len(mask), maxText)])
		return
	}
	m := ir.FromBytes([]byte(masks[0].Data))
	if next, ok := in.Filter.Match.With(ir.TunMetadata0, ir.FromBytes([]byte(key[0].Data)).And(m), m); ok {
		in.Filter.Match = next
	}
}

// geneveOptions reads the options of a key or of tunnel_key. It reports false if there is something else, or nothing.
func geneveOptions(b []byte) (opts []GeneveOption, ok bool) {
	ok = walk(b, func(typ uint16, data []byte) {
		if typ != optsGeneve {
			opts = append(opts, GeneveOption{}) // of another kind: makes it invalid below
			return
		}
		var o GeneveOption
		if !walk(data, func(typ uint16, data []byte) {
			switch {
			case typ == geneveClass && len(data) == 2:
				o.Class = be.Uint16(data)
			case typ == geneveType && len(data) == 1:
				o.Type = data[0]
			case typ == geneveData:
				o.Data = string(data)
				if len(opts) < maxOptions/4 {
					opts = append(opts, o)
				}
				o = GeneveOption{}
			}
		}) {
			opts = append(opts, GeneveOption{})
		}
	})
	for _, o := range opts {
		if len(o.Data)%4 != 0 || len(o.Data) > 124 || o == (GeneveOption{}) {
			return nil, false
		}
	}
	return opts, ok && len(opts) > 0
}

// actions reads TCA_FLOWER_ACT.
func (in *Installed) actions(b []byte) {
	f := &in.Filter
	var n, stamped int
	var cookie Cookie
	if !walk(b, func(order uint16, data []byte) {
		if n++; n > maxActions {
			return
		}
		var st ActionState
		var options, stamp []byte
		var full bool
		walk(data, func(typ uint16, data []byte) {
			switch typ {
			case actKind:
				st.Kind = text(data)
			case actOptions:
				options, full = data, true
			case actIndex:
				if len(data) == 4 {
					st.Index = ne.Uint32(data)
				}
			case actStats:
				st.stats(data)
			case actCookie:
				stamp = data
			case actInHWCount:
				if len(data) == 4 {
					st.InHWCount = ne.Uint32(data)
				}
			case actFlags:
				st.NoPercpu = bits32(data)&actFlagNoPercpuStats != 0
			case actHWStats:
				st.HasHWStats, st.HWStats = true, bits32(data)
			case actUsedHWStats:
				st.HasUsed, st.UsedStats = true, bits32(data)
			}
		})
		if int(order) != n {
			in.foreign("action %d after %d", order, n-1)
		}
		switch {
		case stamp == nil:
		case len(stamp) != len(cookie):
			in.foreign("action %d: cookie of %d bytes", n, len(stamp))
		default:
			stamped++
			if c := Cookie(stamp); stamped > 1 && c != cookie {
				in.foreign("action %d: another cookie", n)
			} else {
				cookie = c
			}
		}
		if full {
			a, verdict, why := decodeAction(&st, options)
			if why == "" {
				why = badVerdict(a, verdict)
			}
			if why != "" {
				in.foreign("action %d: %s", n, why)
			}
			if a != nil {
				f.Actions = append(f.Actions, a)
			}
		} else {
			in.Terse = true
		}
		in.Actions = append(in.Actions, st)
	}) {
		in.foreign("malformed actions")
	}
	if n > maxActions {
		in.foreign("%d actions", n)
	}
	if stamped != 0 && stamped < len(in.Actions) {
		in.foreign("actions without cookie")
	}
	f.Cookie = cookie
}

// More attributes of actions.
const (
	actHWStats     = 8
	actUsedHWStats = 9

	statsBasic   = 1 // TCA_STATS_*
	statsQueue   = 3
	statsBasicHW = 7
	statsPkt64   = 8
)

// bits32 returns the set bits of a struct nla_bitfield32.
func bits32(b []byte) uint32 {
	if len(b) != 8 {
		return 0
	}
	return ne.Uint32(b) & ne.Uint32(b[4:])
}

// stats reads TCA_ACT_STATS. The number of packets of TCA_STATS_BASIC has 32 bits; that of TCA_STATS_PKT64, which follows the
// attribute that it extends, is sent if it has more.
func (st *ActionState) stats(b []byte) {
	hw := false
	walk(b, func(typ uint16, data []byte) {
		switch {
		case typ == statsBasic && len(data) >= 12:
			hw = false
			st.Bytes, st.Packets = ne.Uint64(data), uint64(ne.Uint32(data[8:]))
		case typ == statsBasicHW && len(data) >= 12:
			hw = true
			st.HWBytes, st.HWPackets = ne.Uint64(data), uint64(ne.Uint32(data[8:]))
		case typ == statsPkt64 && len(data) == 8:
			if hw {
				st.HWPackets = ne.Uint64(data)
			} else {
				st.Packets = ne.Uint64(data)
			}
		case typ == statsQueue && len(data) >= 20:
			st.Qlen, st.Backlog, st.Drops = ne.Uint32(data), ne.Uint32(data[4:]), ne.Uint32(data[8:])
			st.Requeues, st.Overlimits = ne.Uint32(data[12:]), ne.Uint32(data[16:])
		}
	})
}

// timesOf are the attributes with struct tcf_t, by kind. PARMS is 2 but for ctParms and csumParms.
var timesOf = map[string]uint16{
	"ct": 2, "csum": 2, "pedit": 1, "tunnel_key": 1, "vlan": 1, "skbedit": 1, "mirred": 1, "gact": 1,
}

// badVerdict says what is wrong with an action's control verdict, if it is not the one that AppendFilter gives it.
func badVerdict(a Action, verdict uint32) string {
	want := uint32(verdictPipe)
	switch a := a.(type) {
	case Goto, Pass, Drop, Trap, nil:
		return ""
	case Mirred:
		if !a.Mirror {
			want = verdictStolen
		}
	}
	if verdict != want {
		return "verdict " + verdictName(verdict)
	}
	return ""
}

// decodeAction reads the options of an action, of which st has the kind. A nil Action is one that there is no type for; why
// says what could not be understood.
func decodeAction(st *ActionState, options []byte) (a Action, verdict uint32, why string) {
	attrs := map[uint16][]byte{}
	if !walk(options, func(typ uint16, data []byte) {
		if len(attrs) < 64 {
			attrs[typ] = data
		}
	}) {
		return nil, 0, st.Kind + ": malformed options"
	}
	typ := uint16(parms)
	switch st.Kind {
	case "ct", "csum":
		typ = 1
	case "pedit":
		typ = peditParmsEx
	}
	p := attrs[typ]
	if len(p) < genSize {
		return nil, 0, st.Kind + " without parameters"
	}
	st.Index, verdict = ne.Uint32(p), ne.Uint32(p[8:])
	st.Ref, st.Bind = int32(ne.Uint32(p[12:])), int32(ne.Uint32(p[16:]))
	if tm := attrs[timesOf[st.Kind]]; len(tm) == 32 {
		st.Installed, st.LastUsed = Ticks(ne.Uint64(tm)), Ticks(ne.Uint64(tm[8:]))
		st.Expires, st.FirstUsed = Ticks(ne.Uint64(tm[16:])), Ticks(ne.Uint64(tm[24:]))
	}
	p = p[genSize:]
	switch st.Kind {
	case "gact":
		if attrs[gactProb] != nil {
			return nil, verdict, "gact with a probability"
		}
		return decodeGact(verdict)
	case "ct":
		a, why = decodeCT(attrs)
	case "pedit":
		var pe Pedit
		pe, why = decodePedit(options)
		a = pe
	case "csum":
		if len(p) < 4 {
			return nil, verdict, "csum without flags"
		}
		var c CSum
		bits := ne.Uint32(p)
		for i, set := range c.flags() {
			*set = bits&(1<<i) != 0
		}
		if c.bits() != bits {
			why = fmt.Sprintf("csum flags %#x", bits)
		}
		a = c
	case "tunnel_key":
		if len(p) < 4 {
			return nil, verdict, "tunnel_key without an operation"
		}
		a, why = decodeTunnel(attrs, ne.Uint32(p))
	case "vlan":
		if len(p) < 4 {
			return nil, verdict, "vlan without an operation"
		}
		a, why = decodeVLAN(attrs, ne.Uint32(p))
	case "skbedit":
		a, why = decodeSkbEdit(attrs)
	case "mirred":
		if len(p) < 8 {
			return nil, verdict, "mirred without an operation"
		}
		m := Mirred{Ifindex: int(int32(ne.Uint32(p[4:])))}
		switch op := ne.Uint32(p); op {
		case egressRedirect:
		case egressMirror:
			m.Mirror = true
		case ingressRedirect:
			m.Ingress = true
		case ingressMirror:
			m.Mirror, m.Ingress = true, true
		default:
			return nil, verdict, fmt.Sprintf("mirred operation %d", op)
		}
		a = m
	default:
		return nil, verdict, fmt.Sprintf("kind %q", st.Kind)
	}
	return a, verdict, why
}

// gactProb is TCA_GACT_PROB: another verdict for some packets.
const gactProb = 3

func decodeGact(verdict uint32) (Action, uint32, string) {
	switch {
	case verdict == verdictOK:
		return Pass{}, verdict, ""
	case verdict == verdictShot:
		return Drop{}, verdict, ""
	case verdict == verdictTrap:
		return Trap{}, verdict, ""
	case verdict&verdictExt == verdictGoto:
		return Goto{Chain: verdict & MaxChain}, verdict, ""
	}
	return nil, verdict, "gact " + verdictName(verdict)
}

// unknownAttrs says which attributes are not among known.
func unknownAttrs(kind string, attrs map[uint16][]byte, known ...uint16) string {
	for typ := range uint16(64) {
		if attrs[typ] == nil {
			continue
		}
		ok := false
		for _, k := range known {
			ok = ok || k == typ
		}
		if !ok {
			return fmt.Sprintf("%s attribute %d", kind, typ)
		}
	}
	return ""
}

func decodeCT(attrs map[uint16][]byte) (Action, string) {
	var a CT
	u16 := func(typ uint16) uint16 { return uint16(number(attrs[typ], 2)) }
	bits := u16(ctAction)
	a.Commit, a.Force, a.Clear = bits&ctActCommit != 0, bits&ctActForce != 0, bits&ctActClear != 0
	a.NAT, a.Src, a.Dst = bits&ctActNAT != 0, bits&ctActNATSrc != 0, bits&ctActNATDst != 0
	a.Zone = u16(ctZone)
	if d := attrs[ctMark]; len(d) == 4 {
		a.Mark, a.MarkMask = ne.Uint32(d), ^uint32(0)
		if m := attrs[ctMarkMask]; len(m) == 4 {
			a.MarkMask = ne.Uint32(m)
		}
		a.Mark &= a.MarkMask
	}
	if d := attrs[ctLabels]; len(d) == 16 {
		a.Label, a.LabelMask = u128Of(d, true), ir.Ones(128)
		if m := attrs[ctLabelsMask]; len(m) == 16 {
			a.LabelMask = u128Of(m, true)
		}
		a.Label = a.Label.And(a.LabelMask)
	}
	a.AddrMin, a.AddrMax = address(attrs, ctNATv4Min, ctNATv6Min), address(attrs, ctNATv4Max, ctNATv6Max)
	if !a.AddrMax.IsValid() {
		a.AddrMax = a.AddrMin
	}
	if d := attrs[ctNATPortMin]; len(d) == 2 {
		a.PortMin, a.PortMax = be.Uint16(d), be.Uint16(d)
		if d := attrs[ctNATPortMax]; len(d) == 2 {
			a.PortMax = be.Uint16(d)
		}
	}
	if bits>>6 != 0 {
		return a, fmt.Sprintf("ct action %#x", bits)
	}
	return a, unknownAttrs("ct", attrs, 0, ctParms, timesOf["ct"], ctAction, ctZone, ctMark, ctMarkMask, ctLabels, ctLabelsMask,
		ctNATv4Min, ctNATv4Max, ctNATv6Min, ctNATv6Max, ctNATPortMin, ctNATPortMax, ctPad)
}

// Attributes that only align others, TCA_*_PAD.
const (
	ctPad  = 15
	tunPad = 8
	vlPad  = 5
	skbPad = 6
)

// number returns the host's integer of n bytes, 0 if b is of another size.
func number(b []byte, n int) uint64 {
	if len(b) != n {
		return 0
	}
	return u128Of(b, true).Lo
}

// address returns the address of either family; the zero Addr if there is none.
func address(attrs map[uint16][]byte, v4, v6 uint16) netip.Addr {
	if d := attrs[v4]; len(d) == 4 {
		return netip.AddrFrom4([4]byte(d))
	}
	if d := attrs[v6]; len(d) == 16 {
		return netip.AddrFrom16([16]byte(d))
	}
	return netip.Addr{}
}

func decodeTunnel(attrs map[uint16][]byte, op uint32) (Action, string) {
	switch op {
	case tunUnset:
		return TunnelUnset{}, unknownAttrs("tunnel_key", attrs, 0, parms, timesOf["tunnel_key"], tunNoCSum, tunPad)
	case tunSet:
	default:
		return nil, fmt.Sprintf("tunnel_key operation %d", op)
	}
	a := TunnelSet{Src: address(attrs, tunSrc4, tunSrc6), Dst: address(attrs, tunDst4, tunDst6)}
	if d := attrs[tunKeyID]; len(d) == 4 {
		a.ID = be.Uint32(d)
	}
	if d := attrs[tunDstPort]; len(d) == 2 {
		a.DstPort = be.Uint16(d)
	}
	a.NoCSum = number(attrs[tunNoCSum], 1) != 0
	a.TOS, a.TTL = uint8(number(attrs[tunTOS], 1)), uint8(number(attrs[tunTTL], 1))
	_, a.NoFrag = attrs[tunNoFrag]
	if d, ok := attrs[tunOpts]; ok {
		opts, ok := geneveOptions(d)
		if !ok {
			return a, fmt.Sprintf("tunnel_key options %x", d[:min(len(d), maxText)])
		}
		a.Options = opts
	}
	return a, unknownAttrs("tunnel_key", attrs, 0, parms, timesOf["tunnel_key"], tunSrc4, tunDst4, tunSrc6, tunDst6, tunKeyID, tunPad,
		tunDstPort, tunNoCSum, tunOpts, tunTOS, tunTTL, tunNoFrag)
}

func decodeVLAN(attrs map[uint16][]byte, op uint32) (Action, string) {
	if op < uint32(VLANPop) || op > uint32(VLANModify) {
		return nil, fmt.Sprintf("vlan operation %d", op)
	}
	a := VLAN{Op: VLANOp(op)}
	if a.Op == VLANPop {
		return a, unknownAttrs("vlan", attrs, 0, parms, timesOf["vlan"], vlPad)
	}
	a.ID = uint16(number(attrs[vlanID], 2))
	if d := attrs[vlanProtocol]; len(d) == 2 {
		a.Protocol = be.Uint16(d)
	}
	if attrs[vlanPriority] == nil {
		return a, "vlan that keeps the priority"
	}
	a.Prio = uint8(number(attrs[vlanPriority], 1))
	return a, unknownAttrs("vlan", attrs, 0, parms, timesOf["vlan"], vlanID, vlanProtocol, vlanPriority, vlPad)
}

func decodeSkbEdit(attrs map[uint16][]byte) (Action, string) {
	var a SkbEdit
	if d := attrs[skbMark]; len(d) == 4 {
		a.Mark, a.MarkMask = ne.Uint32(d), ^uint32(0)
		if m := attrs[skbMask]; len(m) == 4 {
			a.MarkMask = ne.Uint32(m)
		}
		a.Mark &= a.MarkMask
	}
	if d := attrs[skbPtype]; len(d) == 2 {
		if a.Host = ne.Uint16(d) == 0; !a.Host {
			return a, fmt.Sprintf("skbedit ptype %d", ne.Uint16(d))
		}
	}
	return a, unknownAttrs("skbedit", attrs, 0, parms, timesOf["skbedit"], skbMark, skbPtype, skbMask, skbPad)
}

// verdictName returns a control verdict as tc prints it.
func verdictName(v uint32) string {
	switch v {
	case ^uint32(0):
		return "continue"
	case verdictOK:
		return "pass"
	case verdictShot:
		return "drop"
	case 1:
		return "reclassify"
	case verdictPipe:
		return "pipe"
	case verdictStolen:
		return "stolen"
	case verdictTrap:
		return "trap"
	}
	if v&verdictExt == verdictGoto {
		return fmt.Sprintf("goto chain %d", v&MaxChain)
	}
	return fmt.Sprint(int32(v))
}
