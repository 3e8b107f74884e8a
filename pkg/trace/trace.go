package trace

import (
	"fmt"
	"strings"

	"github.com/offloadd/offloadd/pkg/chassis"
	"github.com/offloadd/offloadd/pkg/compile"
	"github.com/offloadd/offloadd/pkg/eval"
	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/logical"
	"github.com/offloadd/offloadd/pkg/openflow"
	"github.com/offloadd/offloadd/pkg/reason"
	"github.com/offloadd/offloadd/pkg/sb"
)

// A Network is what a packet goes through: the rules of the chassis, and what gives them names. Owners in Program are rows of the
// Southbound and the keys of datapaths.
type Network struct {
	SB      *sb.Store
	Local   *chassis.Local
	Program *eval.Program
}

// A Request is a packet.
type Request struct {
	Datapath  string   // name or UUID of the one where it enters; "": that of the inport
	Microflow string   // as ovn-trace(8) takes it; fields it does not mention are 0
	CT        []string // flags like "trk,est" of what each lookup in the connection tracker finds, then "trk,est"
}

// A Kind is what a Step is.
type Kind uint8

// The kinds of steps.
const (
	Pipeline Kind = iota // a packet enters a pipeline of Datapath
	Table                // it meets the logical flow Flow on Datapath by Rule, or nothing if Flow is nil
	Action               // a logical action of that flow
	Output               // it leaves by Port of Datapath
	Drop                 // it is dropped
	Note                 // a remark, such as a rule that is not made from a logical flow
)

// A Step is what happens to a packet.
type Step struct {
	Kind     Kind
	Depth    int    // of copies; 0 for the original
	Text     string // as ovn-trace(8) prints it, without indentation
	Flow     *sb.LogicalFlow
	Rule     *eval.Rule
	Datapath *sb.Datapath // nil before there is one
	Egress   bool         // with Pipeline
	Port     string       // with Output, the logical port or multicast group
	Via      string       // with Output: "local", "tunnel to NAME", "localnet"
}

const (
	firstIngress = uint8(compile.TableIngress)
	firstEgress  = uint8(compile.TableEgress)
)

// Run calls emit with each step of a packet. The errors have a reason of pkg/reason; one that comes after steps is that a
// limit of Open vSwitch was reached.
func Run(n Network, req Request, emit func(Step)) error {
	states := make([]uint32, len(req.CT))
	for i, text := range req.CT {
		state, err := ParseState(text)
		if err != nil {
			return err
		}
		states[i] = state
	}
	flow, err := ParseMicroflow(n.SB, req.Microflow, req.Datapath)
	if err != nil {
		return err
	}
	pkt := flow.Packet()
	table, err := n.enter(&pkt, flow.Datapath, flow.Port)
	if err != nil {
		return err
	}
	t := tracer{Network: n, emit: emit}
	if _, err := n.Program.Run(pkt, table, eval.Options{CT: states, Observe: t.step}); err != nil {
		return reason.Errorf(reason.Internal, "trace: %w", err)
	}
	return nil
}

// stateNames are the flags of ct_state, from the least significant bit.
var stateNames = []string{"new", "est", "rel", "rpl", "inv", "trk", "snat", "dnat"}

// ParseState reads flags of ct_state as ovn-trace(8) takes them with --ct.
func ParseState(text string) (uint32, error) {
	var state uint32
	for _, word := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' || r == '|' }) {
		bit := -1
		for i, name := range stateNames {
			if name == word {
				bit = i
			}
		}
		if bit < 0 {
			err := fmt.Errorf("%q: no state of a connection", word)
			return 0, &reason.Error{
				Reason: reason.InvalidField, Err: fmt.Errorf("trace ct: %w", err),
				Fields: []reason.Field{{Path: "ct", Cause: err.Error()}},
			}
		}
		state |= 1 << bit
	}
	return state, nil
}

func stateText(state uint32) string {
	var words []string
	for i, name := range stateNames {
		if state>>i&1 != 0 {
			words = append(words, name)
		}
	}
	return strings.Join(words, "|")
}

// A tracer turns what the interpreter does into steps.
type tracer struct {
	Network
	emit  func(Step)
	depth int
	tails []bool // for each copy that has begun: it is the last its original is needed for
	place string // the text of the last Pipeline
	sent  bool   // since then
}

func (t *tracer) put(s Step) {
	s.Depth = t.depth
	t.emit(s)
}

func (t *tracer) note(format string, args ...any) {
	t.put(Step{Kind: Note, Text: fmt.Sprintf(format, args...)})
}

func (t *tracer) step(s eval.Step) {
	switch s.Kind {
	case eval.Lookup:
		t.lookup(s)
	case eval.Transmit:
		t.transmit(s)
	case eval.Punt:
		if c, ok := s.Action.(ir.Controller); ok {
			t.note("to the controller: %s", openflow.FormatActions([]ir.Action{c}))
		} else {
			t.drop(s.Packet, "the TTL is exceeded")
		}
		t.sent = true
	case eval.Note:
		t.note("%s", s.Text)
	case eval.Resume:
		t.note("ct(zone=%d) finds %s", s.Zone, stateText(s.CT))
		t.pipeline(s.Packet, s.Table, false)
	case eval.Begin:
		if !s.Last {
			t.depth++
		}
		t.tails = append(t.tails, s.Last)
	case eval.End:
		last := len(t.tails) - 1
		if !t.tails[last] {
			t.depth--
		}
		t.tails = t.tails[:last]
	case eval.Act, eval.Done:
	}
}

// pipeline says where the packet is, when it enters a pipeline or comes back to another one than it was told to be in.
func (t *tracer) pipeline(p *eval.Packet, table uint8, enters bool) {
	dp := t.datapath(p)
	if dp == nil || table < firstIngress || table >= compile.TableSaveInport ||
		table >= compile.TableLargePktDetect && table < firstEgress {
		return
	}
	egress := table >= firstEgress
	text := fmt.Sprintf("ingress(dp=%q, inport=%q)", dp.Name, t.port(dp, p.Value(inport)))
	if egress {
		text = fmt.Sprintf("egress(dp=%q, inport=%q, outport=%q)", dp.Name, t.port(dp, p.Value(inport)), t.port(dp, p.Value(outport)))
	}
	if !enters && text == t.place {
		return
	}
	t.place, t.sent = text, false
	t.put(Step{Kind: Pipeline, Text: text, Datapath: dp, Egress: egress})
}

func (t *tracer) lookup(s eval.Step) {
	if s.Table == firstIngress || s.Table == firstEgress {
		t.pipeline(s.Packet, s.Table, true)
	}
	dp := t.datapath(s.Packet)
	r := s.Rule
	if r == nil {
		if s.Table < compile.TableMACBinding { // others are asked questions to which no rule is an answer
			t.missed(s.Packet, s.Table)
		}
		return
	}
	f := t.SB.LogicalFlows[r.Owner.Row]
	if f == nil {
		t.physical(s, r)
		return
	}
	if f.Match != "1" || f.Actions != "next;" {
		t.put(Step{
			Kind: Table, Flow: f, Rule: r, Datapath: dp,
			Text: fmt.Sprintf("%2d. %s, priority %d, uuid %08x", f.Table, f.Match, f.Priority, f.UUID.Cookie()),
		})
		for _, a := range actionTexts(f) {
			t.put(Step{Kind: Action, Text: a, Datapath: dp})
		}
	}
	if len(r.Actions) == 0 {
		t.drop(s.Packet, "")
	}
}

// physical tells of a rule that is not made from a logical flow, unless it sends every packet on.
func (t *tracer) physical(s eval.Step, r *eval.Rule) {
	if len(r.Match) == 0 && len(r.Actions) > 0 {
		return
	}
	last := s.Table == compile.TableLocalOutput && len(r.Match) == 0
	if !last || !t.sent {
		match := openflow.FormatMatch(r.Match)
		if match != "" {
			match += ", "
		}
		t.note("table %d: %spriority %d, actions=%s", s.Table, match, r.Priority, openflow.FormatActions(r.Actions))
	}
	if len(r.Actions) > 0 || last && t.sent {
		return
	}
	why := ""
	switch s.Table {
	case compile.TablePhyToLog:
		why = "no logical port is at this interface"
	case compile.TableLocalOutput, compile.TableLogToPhy:
		why = "the outport is neither here nor a tunnel away"
	case compile.TableCheckLoopback:
		why = "the outport is the inport"
	}
	t.drop(s.Packet, why)
}

func (t *tracer) missed(p *eval.Packet, table uint8) {
	text := fmt.Sprintf("table %d: no match (implicit drop)", table)
	if logicalTable, ok := logicalTable(table); ok {
		text = fmt.Sprintf("%2d. no match (implicit drop)", logicalTable)
	}
	t.put(Step{Kind: Table, Text: text, Datapath: t.datapath(p)})
	t.drop(p, "no match")
}

// logicalTable returns the number that a table of the bridge has in its pipeline, and whether it is in one.
func logicalTable(table uint8) (uint8, bool) {
	switch {
	case table >= firstIngress && table < compile.TableLargePktDetect:
		return table - firstIngress, true
	case table >= firstEgress && table < compile.TableSaveInport:
		return table - firstEgress, true
	}
	return 0, false
}

func (t *tracer) drop(p *eval.Packet, why string) {
	text := "drop"
	if why != "" {
		text += ": " + why
	}
	t.put(Step{Kind: Drop, Text: text, Datapath: t.datapath(p)})
}

func (t *tracer) transmit(s eval.Step) {
	t.sent = true
	dp := t.datapath(s.Packet)
	name := t.port(dp, s.Packet.Value(outport))
	via := t.via(uint16(s.Port))
	t.put(Step{
		Kind: Output, Datapath: dp, Port: name, Via: via,
		Text: fmt.Sprintf("output(%q), %s, OpenFlow port %d", name, via, s.Port),
	})
}

// via says how an OpenFlow port leads out.
func (t *tracer) via(ofport uint16) string {
	for _, tunnel := range t.Local.Tunnels {
		if tunnel.OFPort == ofport {
			return "tunnel to " + tunnel.Chassis
		}
	}
	for _, patch := range t.Local.Patch {
		if patch == ofport {
			return "localnet"
		}
	}
	return "local"
}

// datapath returns the datapath that the packet is in, nil if it is in none yet.
func (t *tracer) datapath(p *eval.Packet) *sb.Datapath {
	return t.SB.DatapathByKey(uint32(p.Value(ir.Metadata).Lo))
}

// port returns the name of the port or multicast group with a key.
func (t *tracer) port(dp *sb.Datapath, key ir.U128) string {
	if dp == nil || key.IsZero() {
		return ""
	}
	for _, p := range t.SB.PortsOf(dp.UUID) {
		if uint64(p.Key) == key.Lo {
			return p.Name
		}
	}
	for _, g := range t.SB.MulticastGroupsOf(dp.UUID) {
		if uint64(g.Key) == key.Lo {
			return g.Name
		}
	}
	return key.String()
}

// actionTexts returns the actions of f one by one; as they are if they cannot be parsed.
func actionTexts(f *sb.LogicalFlow) []string {
	at := logical.Stage{Pipeline: logical.Ingress, Table: f.Table}
	if f.Egress {
		at.Pipeline = logical.Egress
	}
	parsed, err := logical.ParseActions(f.Actions, logical.Symbols(),
		logical.ActionOptions{At: at, Tables: compile.TableLargePktDetect - compile.TableIngress})
	if err != nil {
		return []string{f.Actions}
	}
	if len(parsed.List) == 0 {
		return []string{"drop;"}
	}
	texts := make([]string, len(parsed.List))
	for i, a := range parsed.List {
		texts[i] = logical.Actions{At: at, List: []logical.Action{a}}.String()
	}
	return texts
}
