package tc

import (
	"fmt"
	"strconv"
	"strings"
)

// ShowOptions are those of "tc filter show".
type ShowOptions struct {
	Stats bool // as with -s

	// Device names a device by its number; "" or a nil function writes "if7".
	Device func(ifindex int) string
}

// Show returns in as "tc filter show", given the target, of iproute2 6.1 prints it: several lines, the last of which is
// empty. What Filter has no words for is missing.
func (in *Installed) Show(o ShowOptions) string {
	var b strings.Builder
	f := &in.Filter
	fmt.Fprintf(&b, "filter protocol %s pref %d %s chain %d ", protocolName(f.Protocol), f.Pref, in.Kind, f.Chain)
	if f.Handle == 0 {
		b.WriteString("\n")
		return b.String()
	}
	fmt.Fprintf(&b, "handle %#x ", f.Handle)
	if !in.Terse {
		for _, c := range f.conditions(false) {
			fmt.Fprintf(&b, "\n  %s %s", c.name, c.value)
		}
	}
	if f.Flags&SkipHW != 0 {
		b.WriteString("\n  skip_hw")
	}
	if f.Flags&SkipSW != 0 {
		b.WriteString("\n  skip_sw")
	}
	switch {
	case f.Flags&InHW != 0:
		fmt.Fprintf(&b, "\n  in_hw in_hw_count %d", in.InHWCount)
	case f.Flags&NotInHW != 0:
		b.WriteString("\n  not_in_hw")
	}
	for i := range in.Actions {
		st := &in.Actions[i]
		fmt.Fprintf(&b, "\n\taction order %d: ", i+1)
		if in.Terse || i >= len(f.Actions) || kindOf(f.Actions[i]) != st.Kind {
			b.WriteString(st.Kind + " ")
		} else {
			f.show(&b, f.Actions[i], st, o)
		}
		if o.Stats {
			st.show(&b)
		}
		if f.Cookie != (Cookie{}) {
			fmt.Fprintf(&b, "\tcookie %s\n", f.Cookie)
		}
		if st.NoPercpu {
			b.WriteString("\tno_percpu\n")
		}
		if st.HasHWStats {
			b.WriteString("\thw_stats" + hwStatsNames(st.HWStats) + "\n")
		}
		if st.HasUsed {
			b.WriteString("\tused_hw_stats" + hwStatsNames(st.UsedStats) + "\n")
		}
	}
	b.WriteString("\n")
	return b.String()
}

// Show returns f as Installed.Show does for a filter that has just been installed and has the only actions of the kernel.
func (f *Filter) Show(o ShowOptions) string {
	in := Installed{Kind: kindFlower, Filter: *f}
	n := map[string]uint32{}
	for _, a := range f.Actions {
		kind := kindOf(a)
		n[kind]++
		in.Actions = append(in.Actions, ActionState{Kind: kind, Index: n[kind], Ref: 1, Bind: 1, NoPercpu: true})
	}
	return in.Show(o)
}

func hwStatsNames(bits uint32) string {
	var s string
	if bits&1 != 0 {
		s += " immediate"
	}
	if bits&2 != 0 {
		s += " delayed"
	}
	if bits == 0 {
		s = " disabled"
	}
	return s
}

// show writes the counters of an action.
func (st *ActionState) show(b *strings.Builder) {
	b.WriteString("\tAction statistics:\n")
	fmt.Fprintf(b, "\tSent %d bytes %d pkt (dropped %d, overlimits %d requeues %d) ", st.Bytes, st.Packets, st.Drops, st.Overlimits, st.Requeues)
	if st.HWBytes|st.HWPackets != 0 {
		if st.Bytes >= st.HWBytes && st.Packets >= st.HWPackets {
			fmt.Fprintf(b, "\n\tSent software %d bytes %d pkt", st.Bytes-st.HWBytes, st.Packets-st.HWPackets)
		}
		fmt.Fprintf(b, "\n\tSent hardware %d bytes %d pkt", st.HWBytes, st.HWPackets)
	}
	fmt.Fprintf(b, "\n\tbacklog %db %dp requeues %d\n", st.Backlog, st.Qlen, st.Requeues)
}

// times returns what tc -s adds to an action's index.
func (st *ActionState) times(o ShowOptions) string {
	if !o.Stats {
		return ""
	}
	const perSecond = 100 // USER_HZ
	var b strings.Builder
	for _, x := range []struct {
		word string
		t    Ticks
	}{{"installed", st.Installed}, {"used", st.LastUsed}, {"firstused", st.FirstUsed}, {"expires", st.Expires}} {
		if x.t != 0 {
			fmt.Fprintf(&b, " %s %d sec", x.word, x.t/perSecond)
		}
	}
	return b.String()
}

// show writes one action. Every module prints in its own way.
func (f *Filter) show(b *strings.Builder, a Action, st *ActionState, o ShowOptions) {
	id := fmt.Sprintf("index %d ref %d bind %d%s", st.Index, st.Ref, st.Bind, st.times(o))
	switch a := a.(type) {
	case CT:
		a.show(b)
		fmt.Fprintf(b, " pipe\n\t %s\n", id)
	case Pedit:
		f.showPedit(b, a, id)
	case CSum:
		var words []string
		for i, set := range a.flags() {
			if *set {
				words = append(words, []string{"iph", "icmp", "igmp", "tcp", "udp", "udplite", "sctp"}[i])
			}
		}
		fmt.Fprintf(b, "csum (%s) action pipe\n\t%s\n", strings.Join(words, ", "), id)
	case TunnelUnset:
		fmt.Fprintf(b, "tunnel_key  unset pipe\n\t %s\n", id)
	case TunnelSet:
		a.show(b)
		fmt.Fprintf(b, " pipe\n\t %s\n", id)
	case VLAN:
		b.WriteString("vlan  " + a.Op.String())
		if a.Op != VLANPop {
			fmt.Fprintf(b, " id %d protocol %s priority %d", a.ID, protocolName(a.Protocol), a.Prio)
		}
		fmt.Fprintf(b, " pipe\n\t %s\n", id)
	case SkbEdit:
		b.WriteString("skbedit ")
		if a.MarkMask != 0 {
			b.WriteString(" mark " + strconv.FormatUint(uint64(a.Mark), 10))
			if a.MarkMask != ^uint32(0) {
				fmt.Fprintf(b, "/0x%x", a.MarkMask)
			}
		}
		if a.Host {
			b.WriteString(" ptype host")
		}
		fmt.Fprintf(b, " pipe\n\t %s\n", id)
	case Mirred:
		direction, op, verdict := "Egress", "Redirect", "stolen"
		if a.Ingress {
			direction = "Ingress"
		}
		if a.Mirror {
			op, verdict = "Mirror", "pipe"
		}
		fmt.Fprintf(b, "mirred (%s %s to device %s) %s\n\t%s\n", direction, op, deviceName(o.Device, a.Ifindex), verdict, id)
	case Goto, Pass, Drop, Trap:
		fmt.Fprintf(b, "gact action %s\n\t random type none pass val 0\n\t %s\n", f.actionArgs(a, nil), id)
	}
}

func (a CT) show(b *strings.Builder) {
	b.WriteString("ct")
	switch {
	case a.Commit && a.Force:
		b.WriteString(" commit force")
	case a.Commit:
		b.WriteString(" commit")
	case a.Clear:
		b.WriteString(" clear")
		return
	}
	if a.MarkMask != 0 {
		b.WriteString(" mark " + maskedNumber(a.Mark, a.MarkMask))
	}
	fmt.Fprintf(b, " zone %d", a.Zone)
	if !a.LabelMask.IsZero() {
		b.WriteString(" label " + labelString(a.Label, a.LabelMask))
	}
	if a.NAT {
		b.WriteString(" nat")
		if s := a.natText(); s != "" {
			b.WriteString(" " + s)
		}
	}
}

func (f *Filter) showPedit(b *strings.Builder, a Pedit, id string) {
	var ws []word
	for _, e := range a.Edits {
		if p, err := placeOf(e.Field, f); err == nil {
			ws = append(ws, e.words(p)...)
		}
	}
	fmt.Fprintf(b, " pedit action pipe keys %d\n \t %s", len(ws), id)
	for i, w := range ws {
		op := "val"
		if w.add {
			op = "add"
		}
		fmt.Fprintf(b, "\n\t key #%d  at %s+%d: %s %08x mask %08x", i, w.header, w.off, op, w.value, ^w.mask)
	}
	b.WriteString("\n")
}

// String returns the header's name in tc.
func (h header) String() string { return [...]string{"", "eth", "ipv4", "ipv6", "tcp", "udp"}[h] }

func (a TunnelSet) show(b *strings.Builder) {
	b.WriteString("tunnel_key  set")
	if a.Src.IsValid() {
		b.WriteString("\n\tsrc_ip " + addrString(a.Src))
	}
	if a.Dst.IsValid() {
		b.WriteString("\n\tdst_ip " + addrString(a.Dst))
	}
	fmt.Fprintf(b, "\n\tkey_id %d", a.ID)
	if a.DstPort != 0 {
		fmt.Fprintf(b, "\n\tdst_port %d", a.DstPort)
	}
	if len(a.Options) > 0 {
		b.WriteString("\n\tgeneve_opts " + optionsText(a.Options))
	}
	if a.NoCSum {
		b.WriteString("\n\tnocsum")
	} else {
		b.WriteString("\n\tcsum")
	}
	if a.TOS != 0 {
		fmt.Fprintf(b, "\n\ttos 0x%x", a.TOS)
	}
	if a.TTL != 0 {
		fmt.Fprintf(b, "\n\tttl %d", a.TTL)
	}
}
