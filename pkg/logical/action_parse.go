package logical

import (
	"cmp"
	"math"
	"net/netip"
	"slices"
	"strings"

	"github.com/offloadd/offloadd/pkg/ir"
)

// ActionOptions says where the parsed actions are and what they may refer to.
type ActionOptions struct {
	// At is the stage of the flow.
	At Stage

	// Tables is the number of tables of a pipeline, LOG_PIPELINE_LEN in OVN. If it is 0, "next" is refused.
	Tables int

	// DHCPv4 and DHCPv6 map option names to their definitions, the rows of DHCP_Options and DHCPv6_Options.
	DHCPv4, DHCPv6 map[string]OptionDef
}

// OptionDef is the definition of a DHCP option. Code and Type are as in DHCP_Options of ovn-sb(5).
type OptionDef struct {
	Code uint16
	Type string
}

// maxActionDepth bounds the nesting of actions (MAX_NESTED_ACTION_DEPTH in lib/actions.c).
const maxActionDepth = 32

// ParseActions parses the actions column of a logical flow. st gives the fields. A returned error is a [*SyntaxError].
func ParseActions(text string, st *SymbolTable, opts ActionOptions) (Actions, error) {
	p := &actionParser{Lexer: NewLexer(text), st: st, opts: opts, scope: WriteAnywhere}
	list := p.actions(TokEnd)
	if p.Failed() {
		return Actions{}, p.Err()
	}
	return Actions{At: opts.At, List: list, Prereqs: p.prereqs}, nil
}

// An actionParser reads actions from left to right. The first error sticks: what is parsed after it means nothing.
type actionParser struct {
	*Lexer
	st      *SymbolTable
	opts    ActionOptions
	prereqs []string
	depth   int
	scope   Scope // which fields the actions may write
}

// actions parses actions up to and including the token end.
func (p *actionParser) actions(end Kind) []Action {
	if p.Tok.Kind == TokID && p.Tok.Text == "drop" && p.Peek() == TokSemicolon {
		p.Next()
		p.Next()
		p.Expect(end)
		return nil
	}
	var list []Action
	for !p.Match(end) {
		a := p.action()
		p.Expect(TokSemicolon)
		if p.Failed() {
			return nil
		}
		list = append(list, a)
	}
	return list
}

// action parses one action without its semicolon. The result means nothing if there is an error.
func (p *actionParser) action() Action {
	switch {
	case p.Tok.Kind == TokTemplate:
		p.Errorf("Unexpanded template.")
		return nil
	case p.Tok.Kind != TokID:
		p.SyntaxErrorf("")
		return nil
	}
	if k := p.Peek(); k == TokEquals || k == TokExchange || k == TokLSquare {
		return p.assignment()
	}

	start := *p.Lexer
	verb := p.Tok.Text
	p.Next()
	switch verb {
	case "output":
		return Output{}
	case "next":
		return p.nextStage()
	case "push":
		return Push{p.stackField(false)}
	case "pop":
		return Pop{p.stackField(true)}
	case "ip.ttl":
		p.Expect(TokDecrement)
		p.require("ip")
		return DecTTL{}
	case "ct_next":
		p.notLast(verb)
		p.require("ip")
		return CTNext{}
	case "ct_commit":
		return p.ctCommit()
	case "ct_commit_nat":
		p.require("ip")
		p.notLast(verb)
		return CTCommitNAT{}
	case "ct_dnat":
		return p.nat(verb, CTDNAT)
	case "ct_snat":
		return p.nat(verb, CTSNAT)
	case "ct_dnat_in_czone":
		return p.nat(verb, CTDNATInCZone)
	case "ct_snat_in_czone":
		return p.nat(verb, CTSNATInCZone)
	case "ct_lb", "ct_lb_mark":
		return p.ctLB(verb)
	case "ct_clear":
		return CTClear{}
	case "mac_cache_use":
		return MACCacheUse{}
	case "ct_snat_to_vip":
		return CTSNATToVIP{}
	case "clone":
		return Clone{p.nested("", WriteAnywhere)}
	case "arp":
		return Reply{ARP, p.nested("ip4", p.scope)}
	case "icmp4":
		return Reply{ICMP4, p.nested("ip4", p.scope)}
	case "icmp4_error":
		return Reply{ICMP4Error, p.nested("ip4", p.scope)}
	case "icmp6":
		return Reply{ICMP6, p.nested("ip6", p.scope)}
	case "icmp6_error":
		return Reply{ICMP6Error, p.nested("ip6", p.scope)}
	case "tcp_reset":
		return Reply{TCPReset, p.nested("tcp", p.scope)}
	case "sctp_abort":
		return Reply{SCTPAbort, p.nested("sctp", p.scope)}
	case "nd_na":
		return Reply{NDNA, p.nested("nd_ns", p.scope)}
	case "nd_na_router":
		return Reply{NDNARouter, p.nested("nd_ns", p.scope)}
	case "nd_ns":
		return Reply{NDNS, p.nested("ip6", p.scope)}
	case "reject":
		return Reply{Reject, p.nested("", p.scope)}
	case "get_arp":
		return p.getMAC(false)
	case "get_nd":
		return p.getMAC(true)
	case "put_arp":
		return p.putMAC(false)
	case "put_nd":
		return p.putMAC(true)
	case "put_fdb":
		return p.putFDB()
	case "set_queue":
		return p.setQueue()
	case "set_meter":
		return p.setMeter()
	case "log":
		return p.log()
	case "trigger_event":
		return p.triggerEvent()
	case "bind_vport":
		return p.bindVPort()
	case "handle_svc_check":
		p.Expect(TokLParen)
		port := p.operand(0)
		p.Expect(TokRParen)
		return HandleSvcCheck{port}
	case "handle_dhcpv6_reply":
		return DHCPv6Reply{}
	case "handle_bfd_msg":
		p.Expect(TokLParen)
		p.Expect(TokRParen)
		return BFDMsg{}
	case "igmp":
		return IGMP{}
	case "fwd_group":
		return p.fwdGroup()
	case "commit_ecmp_nh":
		return p.commitECMPNH()
	case "commit_lb_aff":
		return p.commitLBAff()
	case "sample":
		return p.sample()
	}
	*p.Lexer = start
	p.SyntaxErrorf("expecting action")
	return nil
}

// assignment parses "field = ..." and "field <-> field".
func (p *actionParser) assignment() Action {
	dst := p.field()
	switch {
	case p.Failed():
		return nil
	case p.Match(TokExchange):
		src := p.copied(dst, true)
		return Exchange{dst, src}
	case !p.Match(TokEquals):
		p.SyntaxErrorf("expecting `=' or `<->'")
		return nil
	case p.Tok.Kind != TokID:
		return p.load(dst)
	case p.Peek() != TokLParen:
		src := p.copied(dst, false)
		return Move{dst, src}
	}

	start := *p.Lexer
	verb := p.Tok.Text
	p.Next()
	p.Next()
	switch verb {
	case "select":
		return p.selectMember(dst)
	case "put_dhcp_opts":
		return p.putDHCPOpts(dst)
	case "put_dhcpv6_opts":
		return p.putOpts(PutDHCPv6Opts, dst, p.opts.DHCPv6, "DHCPv6")
	case "put_nd_ra_opts":
		return p.putNDRAOpts(dst)
	case "check_pkt_larger":
		return p.checkPktLarger(dst)
	case "lookup_arp":
		return p.lookupMAC(dst, false)
	case "lookup_nd":
		return p.lookupMAC(dst, true)
	case "lookup_arp_ip":
		return p.lookupMACIP(dst, false)
	case "lookup_nd_ip":
		return p.lookupMACIP(dst, true)
	case "get_fdb":
		return p.getFDB(dst)
	case "lookup_fdb":
		return p.lookupFDB(dst)
	case "dns_lookup":
		return p.test(DNSLookup, dst, verb, "udp")
	case "chk_lb_hairpin":
		return p.test(ChkLBHairpin, dst, verb, "")
	case "chk_lb_hairpin_reply":
		return p.test(ChkLBHairpinReply, dst, verb, "")
	case "check_in_port_sec":
		return p.test(CheckInPortSec, dst, verb, "")
	case "check_out_port_sec":
		return p.test(CheckOutPortSec, dst, verb, "")
	case "chk_ecmp_nh_mac":
		return p.test(ChkECMPNHMAC, dst, verb, "")
	case "chk_ecmp_nh":
		return p.test(ChkECMPNH, dst, verb, "")
	case "chk_lb_aff":
		return p.test(ChkLBAff, dst, verb, "")
	}
	*p.Lexer = start
	src := p.copied(dst, false)
	return Move{dst, src}
}

// load parses the constant of "dst = constant".
func (p *actionParser) load(dst Operand) Action {
	if dst.Symbol.OVNField == 0 {
		p.check(dst, dst.N, true)
	}
	name, width := dst.Symbol.Name, dst.Symbol.Width
	switch {
	case p.Tok.Kind == TokString && width == 0:
		return LoadPort{dst, p.str("")}
	case p.Tok.Kind == TokString:
		p.Errorf("Integer field %s is not compatible with string constant.", name)
	case p.Tok.Kind == TokInteger && width == 0:
		p.Errorf("String field %s is not compatible with integer constant.", name)
	case p.Tok.Kind == TokInteger && p.Tok.width() > width:
		p.Errorf("%d-bit constant is not compatible with %d-bit field %s.", p.Tok.width(), width, name)
	}
	v := p.constant()
	if dst.Symbol.OVNField != 0 {
		return LoadOVNField{dst, v}
	}
	return Load{dst, v}
}

// copied parses the right side of a move to dst or of an exchange with it.
func (p *actionParser) copied(dst Operand, exchange bool) Operand {
	src := p.field()
	if p.Failed() {
		return src
	}
	kind := func(o Operand) string { return ifelse(o.Symbol.Width != 0, "integer", "string") }
	switch {
	case kind(dst) != kind(src) && exchange:
		p.Errorf("Can't exchange %s field (%s) with %s field (%s).",
			kind(dst), dst.Symbol.Name, kind(src), src.Symbol.Name)
	case kind(dst) != kind(src):
		p.Errorf("Can't assign %s field (%s) to %s field (%s).",
			kind(src), src.Symbol.Name, kind(dst), dst.Symbol.Name)
	case dst.N != src.N && exchange:
		p.Errorf("Can't exchange %d-bit field with %d-bit field.", dst.N, src.N)
	case dst.N != src.N:
		p.Errorf("Can't assign %d-bit value to %d-bit destination.", src.N, dst.N)
	default:
		p.check(dst, dst.N, true)
		p.check(src, src.N, exchange)
	}
	return src
}

// stackField parses the argument of push or pop.
func (p *actionParser) stackField(write bool) Operand {
	p.Expect(TokLParen)
	f := p.field()
	p.check(f, f.N, write)
	p.Expect(TokRParen)
	return f
}

// nextStage parses the optional arguments of next.
func (p *actionParser) nextStage() Action {
	if p.opts.Tables == 0 {
		p.Errorf(`"next" action not allowed here.`)
		return nil
	}
	to, table := p.opts.At, int(p.opts.At.Table)+1
	if p.Match(TokLParen) {
		if p.isUint(math.MaxInt32) {
			table = p.int()
		} else {
			to.Pipeline, table = p.pipelineAndTable(to.Pipeline, table)
		}
		p.Expect(TokRParen)
	}
	if table >= p.opts.Tables {
		p.Errorf(`"next" action cannot advance beyond table %d.`, p.opts.Tables-1)
		return nil
	}
	to.Table = uint8(table)
	return Next{to}
}

func (p *actionParser) pipelineAndTable(pipeline Pipeline, table int) (Pipeline, int) {
	for ok := true; ok && !p.Failed(); ok = p.Match(TokComma) {
		switch {
		case p.MatchID("pipeline"):
			p.Expect(TokEquals)
			switch {
			case p.MatchID("ingress"):
				pipeline = Ingress
			case p.MatchID("egress"):
				pipeline = Egress
			default:
				p.SyntaxErrorf(`expecting "ingress" or "egress"`)
			}
		case p.MatchID("table"):
			p.Expect(TokEquals)
			table = p.int()
		default:
			p.SyntaxErrorf(`expecting "pipeline" or "table"`)
		}
	}
	return pipeline, table
}

// notLast refuses an action that continues in the next table if there is none.
func (p *actionParser) notLast(verb string) {
	if int(p.opts.At.Table) >= p.opts.Tables {
		p.Errorf("%q action not allowed in last table.", verb)
	}
}

// nested parses "{ actions }". With a prerequisite, those of the nested actions do not count: they run on another
// packet.
func (p *actionParser) nested(prereq string, scope Scope) []Action {
	p.Expect(TokLCurly)
	if p.depth+1 == maxActionDepth {
		p.Errorf("maximum depth of nested actions reached")
	}
	if p.Failed() {
		return nil
	}
	outer, outerScope := p.prereqs, p.scope
	if prereq != "" {
		p.prereqs = nil
	}
	p.depth, p.scope = p.depth+1, scope
	list := p.actions(TokRCurly)
	p.depth, p.scope = p.depth-1, outerScope
	if prereq != "" {
		p.prereqs = outer
		p.require(prereq)
	}
	return list
}

// ctCommit parses what follows "ct_commit".
func (p *actionParser) ctCommit() Action {
	switch {
	case p.Tok.Kind == TokLCurly:
		return CTCommit{p.nested("ip", WriteCTCommit)}
	case !p.Match(TokLParen):
		p.require("ip")
		return CTCommit{}
	}
	p.require("ip")
	var a CTCommitV1
	for !p.Failed() && !p.Match(TokRParen) {
		switch {
		case p.MatchID("ct_mark"):
			v, m := p.equalsInteger(32)
			a.Mark, a.MarkMask = uint32(v.Lo), uint32(m.Lo)
		case p.MatchID("ct_label"):
			a.Label, a.LabelMask = p.equalsInteger(128)
		default:
			p.SyntaxErrorf("")
		}
		p.Match(TokComma)
	}
	return a
}

// nat parses the optional arguments of ct_dnat and its kin.
func (p *actionParser) nat(verb string, kind NATVerb) Action {
	p.require("ip")
	p.notLast(verb)
	a := NAT{Kind: kind}
	if !p.Match(TokLParen) {
		return a
	}
	a.Addr = p.addr("expecting IPv4 or IPv6 address")
	if p.Match(TokComma) {
		a.PortMin = p.port("range can't be 0", 0)
		if p.Match(TokHyphen) {
			a.PortMax = p.port("range high should be greater than range low", a.PortMin)
		}
	}
	p.Expect(TokRParen)
	return a
}

// port parses an end of a port range. It refuses ports up to low with msg.
func (p *actionParser) port(msg string, low uint16) uint16 {
	if t := p.Tok; t.Kind == TokInteger && t.Format == FormatDecimal && t.Value.Lo <= uint64(low) {
		p.SyntaxErrorf("%s", msg)
	}
	return p.uint16("Integer for port range")
}

// ctLB parses the optional arguments of ct_lb and ct_lb_mark.
func (p *actionParser) ctLB(verb string) Action {
	p.notLast("ct_lb")
	p.require("ip")
	a := CTLB{Mark: verb == "ct_lb_mark"}
	if !p.Match(TokLParen) || p.Match(TokRParen) {
		return a
	}
	if !p.MatchID("backends") || !p.Match(TokEquals) {
		p.SyntaxErrorf("expecting backends")
	}
	for !p.Failed() && p.Tok.Kind != TokSemicolon && p.Tok.Kind != TokRParen {
		a.Backends = append(a.Backends, p.backend())
		p.Match(TokComma)
	}
	for p.Match(TokSemicolon) {
		switch {
		case p.MatchID("hash_fields"):
			if !p.Match(TokEquals) || p.Tok.Kind != TokString {
				p.SyntaxErrorf("invalid hash_fields")
			}
			a.HashFields = p.str("invalid hash_fields")
		case p.MatchID("skip_snat"):
			a.Flag = SkipSNAT
		case p.MatchID("force_snat"):
			a.Flag = ForceSNAT
		default:
			p.SyntaxErrorf("expecting hash_fields, skip_snat or force_snat")
		}
	}
	p.Expect(TokRParen)
	if len(a.Backends) == 0 {
		return CTLB{Mark: a.Mark}
	}
	return a
}

// backend parses an IP address with an optional port.
func (p *actionParser) backend() netip.AddrPort {
	if p.Match(TokLSquare) {
		if !p.isAddr() || p.Tok.Format != FormatIPv6 {
			p.SyntaxErrorf("expecting IPv6 address")
		}
		addr := p.addr("expecting IPv6 address")
		if !p.Match(TokRSquare) {
			p.SyntaxErrorf("no closing square bracket")
		}
		var port uint16
		if p.Match(TokColon) {
			port = p.uint16("port number")
		}
		return netip.AddrPortFrom(addr, port)
	}
	addr := p.addr("expecting IP address")
	var port uint16
	if p.Match(TokColon) {
		if addr.Is6() {
			p.SyntaxErrorf("IPv6 address needs square brackets if port is included")
		}
		port = p.uint16("port number")
	}
	return netip.AddrPortFrom(addr, port)
}

// selectMember parses the arguments of "dst = select(".
func (p *actionParser) selectMember(dst Operand) Action {
	p.check(dst, dst.N, true)
	if dst.N < 16 {
		p.Errorf("cannot use %d-bit field %s[%d..%d] for \"select\", which requires at least 16 bits.",
			dst.N, dst.Symbol.Name, dst.Ofs, dst.Ofs+dst.N-1)
	}
	p.notLast("select")
	var members []SelectMember
	for !p.Failed() && !p.Match(TokRParen) {
		m := SelectMember{p.uint16("id"), 100}
		if p.Match(TokEquals) {
			m.Weight = p.uint16("weight")
			if m.Weight == 0 {
				p.SyntaxErrorf("weight can't be 0")
			}
		}
		p.Match(TokComma)
		members = append(members, m)
	}
	if len(members) < 2 {
		p.SyntaxErrorf("expecting at least 2 group members")
	}
	return Select{dst, members}
}

func (p *actionParser) getMAC(v6 bool) Action {
	p.Expect(TokLParen)
	port := p.operand(0)
	p.Expect(TokComma)
	ip := p.operand(ipBits(v6))
	p.Expect(TokRParen)
	return GetMAC{v6, port, ip}
}

func (p *actionParser) putMAC(v6 bool) Action {
	p.Expect(TokLParen)
	port := p.operand(0)
	p.Expect(TokComma)
	ip := p.operand(ipBits(v6))
	p.Expect(TokComma)
	mac := p.operand(48)
	p.Expect(TokRParen)
	return PutMAC{v6, port, ip, mac}
}

func (p *actionParser) lookupMAC(dst Operand, v6 bool) Action {
	p.check(dst, 1, true)
	port := p.operand(0)
	p.Expect(TokComma)
	ip := p.operand(ipBits(v6))
	p.Expect(TokComma)
	mac := p.operand(48)
	p.Expect(TokRParen)
	return LookupMAC{v6, dst, port, ip, mac}
}

func (p *actionParser) lookupMACIP(dst Operand, v6 bool) Action {
	p.check(dst, 1, true)
	port := p.operand(0)
	p.Expect(TokComma)
	ip := p.operand(ipBits(v6))
	p.Expect(TokRParen)
	return LookupMACIP{v6, dst, port, ip}
}

func ipBits(v6 bool) int {
	if v6 {
		return 128
	}
	return 32
}

func (p *actionParser) putFDB() Action {
	p.Expect(TokLParen)
	port := p.operand(0)
	p.Expect(TokComma)
	mac := p.operand(48)
	p.Expect(TokRParen)
	return PutFDB{port, mac}
}

func (p *actionParser) getFDB(dst Operand) Action {
	if dst.N != 0 {
		p.check(dst, 32, true)
	}
	mac := p.operand(48)
	p.Expect(TokRParen)
	return GetFDB{dst, mac}
}

func (p *actionParser) lookupFDB(dst Operand) Action {
	p.check(dst, 1, true)
	port := p.operand(0)
	p.Expect(TokComma)
	mac := p.operand(48)
	p.Expect(TokRParen)
	return LookupFDB{dst, port, mac}
}

// test parses the end of an action "dst = verb(" that takes no arguments.
func (p *actionParser) test(kind TestVerb, dst Operand, verb, prereq string) Action {
	if !p.Match(TokRParen) {
		p.Errorf("%s doesn't take any parameters", verb)
	}
	p.check(dst, 1, true)
	p.require(prereq)
	return Test{kind, dst}
}

func (p *actionParser) checkPktLarger(dst Operand) Action {
	p.check(dst, 1, true)
	n := p.uint16("packet length")
	p.Expect(TokRParen)
	return CheckPktLarger{dst, n}
}

// maxQueueID is the largest queue number, QDISC_MAX_QUEUE_TokID in include/ovn/actions.h.
const maxQueueID = 0xf000

func (p *actionParser) setQueue() Action {
	p.Expect(TokLParen)
	id := p.int()
	p.Expect(TokRParen)
	if id > maxQueueID {
		p.Errorf("Queue ID %d for set_queue is not in valid range %d to %d.", id, 0, maxQueueID)
	}
	return SetQueue{uint16(id)}
}

func (p *actionParser) setMeter() Action {
	var a SetMeter
	p.Expect(TokLParen)
	a.Rate = p.decimal(math.MaxUint64, "expecting rate")
	if p.Match(TokComma) {
		a.Burst = p.decimal(math.MaxUint64, "expecting burst")
	}
	p.Expect(TokRParen)
	if a.Rate == 0 {
		p.Errorf("Rate %d for set_meter is not in valid.", a.Rate)
	}
	return a
}

// maxLogName bounds the length of a name in log and of an event.
const maxLogName = 63

func (p *actionParser) log() Action {
	a := Log{Severity: SeverityInfo}
	haveVerdict := false
	for open := p.Match(TokLParen); open && !p.Failed() && !p.Match(TokRParen); p.Match(TokComma) {
		switch {
		case p.MatchID("verdict"):
			p.Expect(TokEquals)
			haveVerdict = true
			switch {
			case p.MatchID("drop"):
				a.Verdict = VerdictDrop
			case p.MatchID("reject"):
				a.Verdict = VerdictReject
			case p.MatchID("allow"):
				a.Verdict = VerdictAllow
			default:
				p.SyntaxErrorf("unknown verdict")
			}
		case p.MatchID("name"):
			p.Expect(TokEquals)
			if p.Tok.Kind == TokString && len(p.Tok.Text) > maxLogName {
				p.SyntaxErrorf("name must be shorter than 64 characters")
			}
			a.Name = p.str("expecting string")
		case p.MatchID("severity"):
			p.Expect(TokEquals)
			a.Severity = p.severity()
		case p.MatchID("meter"):
			p.Expect(TokEquals)
			a.Meter = p.str("expecting string")
		default:
			p.SyntaxErrorf("")
		}
	}
	if !haveVerdict {
		p.SyntaxErrorf("expecting verdict")
	}
	return a
}

func (p *actionParser) severity() Severity {
	if p.Tok.Kind != TokID {
		p.SyntaxErrorf("expecting severity")
		return 0
	}
	for _, s := range []Severity{SeverityAlert, SeverityWarning, SeverityNotice, SeverityInfo, SeverityDebug} {
		if p.MatchID(s.String()) {
			return s
		}
	}
	p.SyntaxErrorf("unknown severity")
	return 0
}

func (p *actionParser) bindVPort() Action {
	p.Expect(TokLParen)
	vport := p.str("expecting port name string")
	p.Expect(TokComma)
	parent := p.operand(0)
	p.Expect(TokRParen)
	return BindVPort{vport, parent}
}

// fwdGroup parses the optional arguments of fwd_group.
func (p *actionParser) fwdGroup() Action {
	var a FwdGroup
	if !p.Match(TokLParen) {
		return a
	}
	if p.MatchID("liveness") {
		p.Expect(TokEquals)
		a.Liveness = p.bool()
		p.Expect(TokComma)
	}
	if !p.MatchID("childports") {
		p.SyntaxErrorf("expecting childports")
	}
	p.Expect(TokEquals)
	for !p.Failed() && !p.Match(TokRParen) {
		a.ChildPorts = append(a.ChildPorts, p.str("expecting logical switch port"))
		p.Match(TokComma)
	}
	if len(a.ChildPorts) == 0 {
		return FwdGroup{}
	}
	return a
}

func (p *actionParser) commitECMPNH() Action {
	var a CommitECMPNH
	p.Expect(TokLParen)
	p.param("ipv6")
	a.IPv6 = p.bool()
	p.Expect(TokComma)
	p.param("proto")
	a.Proto = p.proto()
	p.Expect(TokRParen)
	return a
}

func (p *actionParser) commitLBAff() Action {
	var a CommitLBAff
	p.Expect(TokLParen)
	p.param("vip")
	a.VIP = p.quotedAddrPort()
	p.Expect(TokComma)
	p.param("backend")
	a.Backend = p.quotedAddrPort()
	if a.VIP.Addr().Is4() != a.Backend.Addr().Is4() {
		p.SyntaxErrorf("invalid protocol family")
	}
	p.Expect(TokComma)
	if a.VIP.Port() != 0 {
		p.param("proto")
		a.Proto = p.proto()
		p.Expect(TokComma)
	}
	p.param("timeout")
	a.Timeout = p.uint16("affinity timeout")
	p.Expect(TokRParen)
	return a
}

// param parses "name =".
func (p *actionParser) param(name string) {
	if !p.MatchID(name) || !p.Match(TokEquals) {
		p.SyntaxErrorf("invalid parameter")
	}
}

func (p *actionParser) bool() bool {
	v := p.Tok.Text
	if k := p.Tok.Kind; k != TokID && k != TokString || v != "true" && v != "false" {
		p.SyntaxErrorf("expecting true or false")
		return false
	}
	p.Next()
	return v == "true"
}

func (p *actionParser) proto() uint8 {
	for _, proto := range []uint8{6, 17, 132} {
		if p.MatchID(protoName(proto)) {
			return proto
		}
	}
	p.SyntaxErrorf("invalid protocol")
	return 0
}

// quotedAddrPort parses a string that holds an IP address with an optional port.
func (p *actionParser) quotedAddrPort() netip.AddrPort {
	if p.Tok.Kind == TokString {
		if a, ok := parseAddrPort(p.Tok.Text); ok {
			p.Next()
			return a
		}
	}
	p.SyntaxErrorf("invalid parameter")
	return netip.AddrPort{}
}

// parseAddrPort parses an IPv4 address, or an IPv6 address with or without brackets, and an optional port.
func parseAddrPort(s string) (netip.AddrPort, bool) {
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		if inner, ok := strings.CutPrefix(s, "["); ok && strings.HasSuffix(inner, "]") && strings.Contains(inner, ":") {
			s = strings.TrimSuffix(inner, "]")
		}
		addr, err := netip.ParseAddr(s)
		if err != nil {
			return netip.AddrPort{}, false
		}
		a = netip.AddrPortFrom(addr, 0)
	}
	return a, a.Addr().Zone() == ""
}

func (p *actionParser) sample() Action {
	var a Sample
	for open := p.Match(TokLParen); open && !p.Failed() && !p.Match(TokRParen); p.Match(TokComma) {
		switch {
		case p.MatchID("probability"):
			p.Expect(TokEquals)
			a.Probability = p.uint16("probability")
		case p.MatchID("obs_point"):
			p.Expect(TokEquals)
			if p.Tok.Kind == TokMacro && p.Tok.Text == "cookie" {
				p.Next()
				a.Cookie, a.ObsPoint = true, 0
			} else {
				a.Cookie, a.ObsPoint = false, p.uint32("malformed sample observation_point_id")
			}
		case p.MatchID("obs_domain"):
			p.Expect(TokEquals)
			a.ObsDomain = p.uint8("obs_domain must be 8-bit long")
		case p.MatchID("collector_set"):
			p.Expect(TokEquals)
			a.CollectorSet = p.uint32("expecting collector set id")
		default:
			p.SyntaxErrorf("unknown argument")
		}
	}
	if a.Probability == 0 {
		p.Errorf("probability must be greater than zero")
	}
	return a
}

// require adds a prerequisite of the actions; "" is none.
func (p *actionParser) require(prereq string) {
	if prereq != "" && !slices.Contains(p.prereqs, prereq) {
		p.prereqs = append(slices.Clip(p.prereqs), prereq)
	}
}

// field parses a field or bits of one and adds its prerequisites. Predicates are refused.
func (p *actionParser) field() Operand {
	o, ok := p.st.parseOperand(p.Lexer)
	if !ok {
		return Operand{}
	}
	if o.Symbol.Predicate != "" {
		p.Errorf("Predicate symbol %s used where lvalue required.", o.Symbol.Name)
	}
	for s := o.Symbol; s != nil; s = s.Parent {
		p.require(s.Prereqs)
	}
	return o
}

// operand parses a field of n bits that is read, a string field if n is 0.
func (p *actionParser) operand(n int) Operand {
	o := p.field()
	p.check(o, n, false)
	return o
}

// check refuses o if it does not have n bits (0: if it is not a string field) or cannot be written though it should.
func (p *actionParser) check(o Operand, n int, write bool) {
	if p.Failed() {
		return
	}
	name := o.Symbol.Name
	switch {
	case n != o.N && n != 0 && o.N != 0:
		p.Errorf("Cannot use %d-bit field %s[%d..%d] where %d-bit field is required.",
			o.N, name, o.Ofs, o.Ofs+o.N-1, n)
	case n != o.N && n != 0:
		p.Errorf("Cannot use string field %s where numeric field is required.", name)
	case n != o.N:
		p.Errorf("Cannot use numeric field %s where string field is required.", name)
	case o.Symbol.OVNField != 0:
		p.Errorf("Field %s can only be set to a constant.", name)
	case write && o.Symbol.Writable&p.scope == 0:
		p.Errorf("Field %s is not modifiable.", name)
	}
}

// constant parses a number or an address.
func (p *actionParser) constant() Constant {
	c := p.Tok.Constant
	if p.Tok.Kind == TokInteger {
		p.Next()
		return c
	}
	if p.Tok.Kind == TokTemplate {
		p.Errorf("Unexpanded template.")
	}
	// Actions have no sets: no name is one.
	sets := map[Kind]string{TokMacro: "address set name", TokGroup: "port group name"}
	p.SyntaxErrorf("expecting %s", cmp.Or(sets[p.Tok.Kind], "constant"))
	return c
}

// str parses a string.
func (p *actionParser) str(msg string) string {
	if p.Tok.Kind != TokString {
		p.SyntaxErrorf("%s", msg)
		return ""
	}
	s := p.Tok.Text
	p.Next()
	return s
}

// isUint reports whether the token is a decimal number of at most limit.
func (p *actionParser) isUint(limit uint64) bool {
	t := &p.Tok
	return t.Kind == TokInteger && !t.Masked && t.Format == FormatDecimal && t.Value.Lo <= limit
}

// decimal parses a decimal number of at most limit.
func (p *actionParser) decimal(limit uint64, msg string) uint64 {
	if !p.isUint(limit) {
		p.SyntaxErrorf("%s", msg)
		return 0
	}
	v := p.Tok.Value.Lo
	p.Next()
	return v
}

func (p *actionParser) int() int { return int(p.decimal(math.MaxInt32, "expecting small integer")) }

func (p *actionParser) uint8(msg string) uint8 { return uint8(p.decimal(math.MaxUint8, msg)) }

// uint16 parses a number; what says what it is.
func (p *actionParser) uint16(what string) uint16 {
	return uint16(p.decimal(math.MaxUint16, "expecting "+what))
}

func (p *actionParser) uint32(msg string) uint32 { return uint32(p.decimal(math.MaxUint32, msg)) }

// isAddr reports whether the token is an IP address without a mask.
func (p *actionParser) isAddr() bool {
	t := &p.Tok
	return t.Kind == TokInteger && !t.Masked && (t.Format == FormatIPv4 || t.Format == FormatIPv6)
}

// addr parses an IP address.
func (p *actionParser) addr(msg string) netip.Addr {
	if !p.isAddr() {
		p.SyntaxErrorf("%s", msg)
		return netip.Addr{}
	}
	b, v4 := p.Tok.Value.Bytes16(), p.Tok.Format == FormatIPv4
	p.Next()
	if v4 {
		return netip.AddrFrom4([4]byte(b[12:]))
	}
	return netip.AddrFrom16(b)
}

// equalsInteger parses "= integer" or "= integer/mask" of at most n bits and returns value and mask.
func (p *actionParser) equalsInteger(n int) (value, mask ir.U128) {
	p.Expect(TokEquals)
	if p.Tok.Kind != TokInteger {
		p.SyntaxErrorf("expecting integer")
		return
	}
	c := p.Tok.Constant
	if w := c.width(); w > n {
		p.SyntaxErrorf("expecting integer of at most %d bits", n)
	}
	p.Next()
	if !c.Masked {
		c.Mask = ir.Ones(n)
	}
	return c.Value, c.Mask
}
