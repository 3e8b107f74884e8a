package logical

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/offloadd/offloadd/pkg/ir"
)

// String returns the canonical text of a, the one that ovn-controller prints. It parses to a again.
func (a Actions) String() string { return string(appendActions(nil, a.List, a.At)) }

func appendActions(b []byte, list []Action, at Stage) []byte {
	if len(list) == 0 {
		return append(b, "drop;"...)
	}
	for i, a := range list {
		if i > 0 {
			b = append(b, ' ')
		}
		b = a.append(b, at)
	}
	return b
}

// String returns the operand as an lvalue, such as "reg0[4..7]".
func (o Operand) String() string { return string(o.append(nil)) }

func (o Operand) append(b []byte) []byte {
	b = append(b, o.Symbol.Name...)
	if o.Ofs == 0 && o.N == o.Symbol.Width {
		return b
	}
	b = append(b, '[')
	b = strconv.AppendInt(b, int64(o.Ofs), 10)
	if o.N > 1 {
		b = append(b, ".."...)
		b = strconv.AppendInt(b, int64(o.Ofs+o.N-1), 10)
	}
	return append(b, ']')
}

// appendCall appends "verb(args);".
func appendCall(b []byte, verb string, args ...Operand) []byte {
	b = append(append(b, verb...), '(')
	for i, a := range args {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = a.append(b)
	}
	return append(b, ");"...)
}

// appendLet appends "dst = ".
func appendLet(b []byte, dst Operand) []byte { return append(dst.append(b), " = "...) }

// appendNest appends "verb { nested };".
func appendNest(b []byte, verb string, nested []Action, at Stage) []byte {
	b = append(append(b, verb...), " { "...)
	b = appendActions(b, nested, at)
	return append(b, " };"...)
}

func appendUint[T uint8 | uint16 | uint32 | uint64](b []byte, v T) []byte {
	return strconv.AppendUint(b, uint64(v), 10)
}

func appendText(b []byte, parts ...string) []byte {
	for _, s := range parts {
		b = append(b, s...)
	}
	return b
}

func (Output) verb() string                      { return "output" }
func (a Output) append(b []byte, _ Stage) []byte { return appendText(b, a.verb(), ";") }

func (Next) verb() string { return "next" }

func (a Next) append(b []byte, at Stage) []byte {
	switch {
	case a.To.Pipeline != at.Pipeline:
		b = appendText(b, "next(pipeline=", a.To.Pipeline.String(), ", table=")
		b = appendUint(b, a.To.Table)
		return append(b, ");"...)
	case int(a.To.Table) != int(at.Table)+1:
		b = appendText(b, "next(")
		b = appendUint(b, a.To.Table)
		return append(b, ");"...)
	default:
		return append(b, "next;"...)
	}
}

func (LoadPort) verb() string { return "=" }

func (a LoadPort) append(b []byte, _ Stage) []byte {
	return appendText(appendLet(b, a.Dst), quote(a.Port), ";")
}

func (Load) verb() string { return "=" }

func (a Load) append(b []byte, _ Stage) []byte {
	return appendText(appendLet(b, a.Dst), a.Value.String(), ";")
}

func (a LoadOVNField) verb() string { return a.Dst.Symbol.Name }

func (a LoadOVNField) append(b []byte, _ Stage) []byte {
	return append(appendUint(appendLet(b, a.Dst), a.Value.Value.Lo), ';')
}

func (Move) verb() string { return "=" }

func (a Move) append(b []byte, _ Stage) []byte { return append(a.Src.append(appendLet(b, a.Dst)), ';') }

func (Exchange) verb() string { return "<->" }

func (a Exchange) append(b []byte, _ Stage) []byte {
	return append(a.B.append(append(a.A.append(b), " <-> "...)), ';')
}

func (Push) verb() string                      { return "push" }
func (a Push) append(b []byte, _ Stage) []byte { return appendCall(b, a.verb(), a.Field) }

func (Pop) verb() string                      { return "pop" }
func (a Pop) append(b []byte, _ Stage) []byte { return appendCall(b, a.verb(), a.Field) }

func (DecTTL) verb() string                      { return "ip.ttl--" }
func (a DecTTL) append(b []byte, _ Stage) []byte { return appendText(b, a.verb(), ";") }

func (CTNext) verb() string                      { return "ct_next" }
func (a CTNext) append(b []byte, _ Stage) []byte { return appendText(b, a.verb(), ";") }

func (CTCommitV1) verb() string { return "ct_commit" }

func (a CTCommitV1) append(b []byte, _ Stage) []byte {
	b = append(b, "ct_commit("...)
	sep := ""
	if a.MarkMask != 0 {
		b = appendText(b, "ct_mark=", ir.U64(uint64(a.Mark)).String())
		if a.MarkMask != ^uint32(0) {
			b = appendText(b, "/", ir.U64(uint64(a.MarkMask)).String())
		}
		sep = ", "
	}
	if !a.LabelMask.IsZero() {
		b = appendText(b, sep, "ct_label=", a.Label.String())
		if a.LabelMask != ir.Ones(128) {
			b = appendText(b, "/", a.LabelMask.String())
		}
	}
	return append(b, ");"...)
}

func (CTCommit) verb() string { return "ct_commit" }

func (a CTCommit) append(b []byte, at Stage) []byte {
	if len(a.Nested) == 0 {
		return append(b, "ct_commit;"...)
	}
	return appendNest(b, "ct_commit", a.Nested, at)
}

func (a NAT) verb() string {
	return [...]string{
		CTDNAT:        "ct_dnat",
		CTSNAT:        "ct_snat",
		CTDNATInCZone: "ct_dnat_in_czone",
		CTSNATInCZone: "ct_snat_in_czone",
	}[a.Kind]
}

func (a NAT) append(b []byte, _ Stage) []byte {
	b = append(b, a.verb()...)
	if a.Addr.IsValid() {
		b = a.Addr.AppendTo(append(b, '('))
		if a.PortMin != 0 {
			b = appendUint(append(b, ','), a.PortMin)
		}
		if a.PortMax != 0 {
			b = appendUint(append(b, '-'), a.PortMax)
		}
		b = append(b, ')')
	}
	return append(b, ';')
}

func (CTCommitNAT) verb() string                      { return "ct_commit_nat" }
func (a CTCommitNAT) append(b []byte, _ Stage) []byte { return appendText(b, a.verb(), ";") }

func (a CTLB) verb() string {
	if a.Mark {
		return "ct_lb_mark"
	}
	return "ct_lb"
}

func (a CTLB) append(b []byte, _ Stage) []byte {
	b = append(b, a.verb()...)
	if len(a.Backends) == 0 {
		return append(b, ';')
	}
	b = append(b, "(backends="...)
	for i, d := range a.Backends {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendAddrPort(b, d)
	}
	if a.HashFields != "" {
		b = appendText(b, "; hash_fields=", quote(a.HashFields))
	}
	switch a.Flag {
	case SkipSNAT:
		b = append(b, "; skip_snat"...)
	case ForceSNAT:
		b = append(b, "; force_snat"...)
	case NoSNATFlag:
	}
	return append(b, ");"...)
}

// appendAddrPort appends an address with its port, without it if it is 0. The address of an IPv6 pair with a port
// is in brackets.
func appendAddrPort(b []byte, a netip.AddrPort) []byte {
	if a.Port() == 0 {
		return a.Addr().AppendTo(b)
	}
	return a.AppendTo(b)
}

func (Select) verb() string { return "select" }

func (a Select) append(b []byte, _ Stage) []byte {
	b = append(appendLet(b, a.Dst), "select("...)
	for i, m := range a.Members {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = appendUint(b, m.ID)
		b = appendUint(append(b, '='), m.Weight)
	}
	return append(b, ");"...)
}

func (MACCacheUse) verb() string                      { return "mac_cache_use" }
func (a MACCacheUse) append(b []byte, _ Stage) []byte { return appendText(b, a.verb(), ";") }

func (CTClear) verb() string                      { return "ct_clear" }
func (a CTClear) append(b []byte, _ Stage) []byte { return appendText(b, a.verb(), ";") }

func (Clone) verb() string                       { return "clone" }
func (a Clone) append(b []byte, at Stage) []byte { return appendNest(b, a.verb(), a.Nested, at) }

func (a Reply) verb() string {
	return [...]string{
		ARP:        "arp",
		NDNA:       "nd_na",
		NDNARouter: "nd_na_router",
		NDNS:       "nd_ns",
		ICMP4:      "icmp4",
		ICMP4Error: "icmp4_error",
		ICMP6:      "icmp6",
		ICMP6Error: "icmp6_error",
		TCPReset:   "tcp_reset",
		SCTPAbort:  "sctp_abort",
		Reject:     "reject",
	}[a.Kind]
}

func (a Reply) append(b []byte, at Stage) []byte { return appendNest(b, a.verb(), a.Nested, at) }

func (a GetMAC) verb() string                    { return ifelse(a.IPv6, "get_nd", "get_arp") }
func (a GetMAC) append(b []byte, _ Stage) []byte { return appendCall(b, a.verb(), a.Port, a.IP) }

func (a PutMAC) verb() string { return ifelse(a.IPv6, "put_nd", "put_arp") }

func (a PutMAC) append(b []byte, _ Stage) []byte {
	return appendCall(b, a.verb(), a.Port, a.IP, a.MAC)
}

func (a LookupMAC) verb() string { return ifelse(a.IPv6, "lookup_nd", "lookup_arp") }

func (a LookupMAC) append(b []byte, _ Stage) []byte {
	return appendCall(appendLet(b, a.Dst), a.verb(), a.Port, a.IP, a.MAC)
}

func (a LookupMACIP) verb() string { return ifelse(a.IPv6, "lookup_nd_ip", "lookup_arp_ip") }

func (a LookupMACIP) append(b []byte, _ Stage) []byte {
	return appendCall(appendLet(b, a.Dst), a.verb(), a.Port, a.IP)
}

func ifelse(cond bool, yes, no string) string {
	if cond {
		return yes
	}
	return no
}

func (a PutOpts) verb() string {
	return [...]string{
		PutDHCPOpts:   "put_dhcp_opts",
		PutDHCPv6Opts: "put_dhcpv6_opts",
		PutNDRAOpts:   "put_nd_ra_opts",
	}[a.Kind]
}

func (a PutOpts) append(b []byte, _ Stage) []byte {
	b = appendText(appendLet(b, a.Dst), a.verb(), "(")
	for i, o := range a.Opts {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = o.append(b)
	}
	return append(b, ");"...)
}

func (o Option) append(b []byte) []byte {
	b = appendText(b, o.Name, " = ")
	values := make([]string, 0, len(o.Values)+len(o.Strings))
	for _, v := range o.Values {
		values = append(values, v.String())
	}
	for _, v := range o.Strings {
		values = append(values, quote(v))
	}
	if text := strings.Join(values, ", "); !o.Set {
		b = appendText(b, text)
	} else {
		b = appendText(b, "{", text, "}")
	}
	return b
}

func (SetQueue) verb() string { return "set_queue" }

func (a SetQueue) append(b []byte, _ Stage) []byte {
	return append(appendUint(append(b, "set_queue("...), a.ID), ");"...)
}

func (a Test) verb() string {
	return [...]string{
		DNSLookup:         "dns_lookup",
		ChkLBHairpin:      "chk_lb_hairpin",
		ChkLBHairpinReply: "chk_lb_hairpin_reply",
		CheckInPortSec:    "check_in_port_sec",
		CheckOutPortSec:   "check_out_port_sec",
		ChkECMPNHMAC:      "chk_ecmp_nh_mac",
		ChkECMPNH:         "chk_ecmp_nh",
		ChkLBAff:          "chk_lb_aff",
	}[a.Kind]
}

func (a Test) append(b []byte, _ Stage) []byte { return appendCall(appendLet(b, a.Dst), a.verb()) }

func (Log) verb() string { return "log" }

// String returns the verdict as in an ACL's log message.
func (v Verdict) String() string {
	return [...]string{VerdictAllow: "allow", VerdictDrop: "drop", VerdictReject: "reject"}[v]
}

// String returns the severity as in an ACL's log message.
func (s Severity) String() string {
	switch s {
	case SeverityAlert:
		return "alert"
	case SeverityWarning:
		return "warning"
	case SeverityNotice:
		return "notice"
	case SeverityInfo:
		return "info"
	case SeverityDebug:
		return "debug"
	}
	return "severity(" + strconv.Itoa(int(s)) + ")"
}

func (a Log) append(b []byte, _ Stage) []byte {
	b = append(b, "log("...)
	if a.Name != "" {
		b = append(appendText(b, "name=", quote(a.Name)), ", "...)
	}
	b = appendText(b, "verdict=", a.Verdict.String(), ", severity=", a.Severity.String())
	if a.Meter != "" {
		b = appendText(b, ", meter=", quote(a.Meter))
	}
	return append(b, ");"...)
}

func (SetMeter) verb() string { return "set_meter" }

func (a SetMeter) append(b []byte, _ Stage) []byte {
	b = appendUint(append(b, "set_meter("...), a.Rate)
	if a.Burst != 0 {
		b = appendUint(append(b, ", "...), a.Burst)
	}
	return append(b, ");"...)
}

func (CheckPktLarger) verb() string { return "check_pkt_larger" }

func (a CheckPktLarger) append(b []byte, _ Stage) []byte {
	b = appendText(appendLet(b, a.Dst), a.verb(), "(")
	return append(appendUint(b, a.Len), ");"...)
}

func (TriggerEvent) verb() string { return "trigger_event" }

func (a TriggerEvent) append(b []byte, _ Stage) []byte {
	b = appendText(b, "trigger_event(event = ", quote(a.Event))
	for _, o := range a.Opts {
		b = o.append(append(b, ", "...))
	}
	return append(b, ");"...)
}

func (BindVPort) verb() string { return "bind_vport" }

func (a BindVPort) append(b []byte, _ Stage) []byte {
	b = appendText(b, "bind_vport(", quote(a.VPort))
	return append(a.Parent.append(append(b, ", "...)), ");"...)
}

func (HandleSvcCheck) verb() string                      { return "handle_svc_check" }
func (a HandleSvcCheck) append(b []byte, _ Stage) []byte { return appendCall(b, a.verb(), a.Port) }

func (FwdGroup) verb() string { return "fwd_group" }

func (a FwdGroup) append(b []byte, _ Stage) []byte {
	if len(a.ChildPorts) == 0 {
		return append(b, "fwd_group;"...)
	}
	b = append(b, "fwd_group("...)
	if a.Liveness {
		b = append(b, `liveness="true", `...)
	}
	sep := "childports="
	for _, p := range a.ChildPorts {
		b = appendText(b, sep, quote(p))
		sep = ", "
	}
	return append(b, ");"...)
}

func (IGMP) verb() string                      { return "igmp" }
func (a IGMP) append(b []byte, _ Stage) []byte { return appendText(b, a.verb(), ";") }

func (DHCPv6Reply) verb() string                      { return "handle_dhcpv6_reply" }
func (a DHCPv6Reply) append(b []byte, _ Stage) []byte { return appendText(b, a.verb(), ";") }

func (BFDMsg) verb() string                      { return "handle_bfd_msg" }
func (a BFDMsg) append(b []byte, _ Stage) []byte { return appendCall(b, a.verb()) }

func (CTSNATToVIP) verb() string                      { return "ct_snat_to_vip" }
func (a CTSNATToVIP) append(b []byte, _ Stage) []byte { return appendText(b, a.verb(), ";") }

func (PutFDB) verb() string                      { return "put_fdb" }
func (a PutFDB) append(b []byte, _ Stage) []byte { return appendCall(b, a.verb(), a.Port, a.MAC) }

func (GetFDB) verb() string { return "get_fdb" }

func (a GetFDB) append(b []byte, _ Stage) []byte {
	return appendCall(appendLet(b, a.Dst), a.verb(), a.MAC)
}

func (LookupFDB) verb() string { return "lookup_fdb" }

func (a LookupFDB) append(b []byte, _ Stage) []byte {
	return appendCall(appendLet(b, a.Dst), a.verb(), a.Port, a.MAC)
}

// protoName returns the name of an IP protocol in actions, "tcp" for an unknown one.
func protoName(proto uint8) string {
	switch proto {
	case 17:
		return "udp"
	case 132:
		return "sctp"
	}
	return "tcp"
}

func (CommitECMPNH) verb() string { return "commit_ecmp_nh" }

func (a CommitECMPNH) append(b []byte, _ Stage) []byte {
	return appendText(b, "commit_ecmp_nh(ipv6 = ", strconv.FormatBool(a.IPv6), ", proto = ", protoName(a.Proto), ");")
}

func (CommitLBAff) verb() string { return "commit_lb_aff" }

func (a CommitLBAff) append(b []byte, _ Stage) []byte {
	b = appendText(b, "commit_lb_aff(vip = ", quoteAddrPort(a.VIP), ", backend = ", quoteAddrPort(a.Backend))
	if a.Proto != 0 {
		b = appendText(b, ", proto = ", protoName(a.Proto))
	}
	return append(appendUint(append(b, ", timeout = "...), a.Timeout), ");"...)
}

// quoteAddrPort returns the pair in double quotes, an IPv6 address always in brackets.
func quoteAddrPort(a netip.AddrPort) string {
	s := a.String()
	if a.Port() == 0 {
		s = strings.TrimSuffix(s, ":0")
	}
	return `"` + s + `"`
}

func (Sample) verb() string { return "sample" }

func (a Sample) append(b []byte, _ Stage) []byte {
	b = appendUint(append(b, "sample(probability="...), a.Probability)
	b = appendUint(append(b, ",collector_set="...), a.CollectorSet)
	b = appendUint(append(b, ",obs_domain="...), a.ObsDomain)
	b = append(b, ",obs_point="...)
	if a.Cookie {
		b = append(b, "$cookie"...)
	} else {
		b = appendUint(b, a.ObsPoint)
	}
	return append(b, ");"...)
}
