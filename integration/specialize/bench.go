package specialize

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/offloadd/offloadd/integration/specialize/topology"
	"github.com/offloadd/offloadd/pkg/eval"
	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/openflow"
	"github.com/offloadd/offloadd/pkg/tc"
)

// A Program is what a specialiser makes: the filters of a block that the devices of local ports and of tunnels share.
type Program struct {
	Filters []tc.Filter

	// Why says why a filter passes packets to Open vSwitch, in a word or two, for the summary. nil: nobody knows.
	Why func(*tc.Filter) string

	// Hardware says which filters a NIC takes. nil: there is none.
	Hardware func(*tc.Filter) bool
}

// A Specialiser makes filters of a topology's program. Devices are those of the topology.
type Specialiser func(*topology.Topology) (Program, error)

// A Bench is a topology at which filters are judged. It does not change.
type Bench struct {
	Topology *topology.Topology

	rules, flows *eval.Program
	traffic      *traffic
	levels       map[level][]ir.Rule
}

// NewBench returns the bench of a topology.
func NewBench(t *topology.Topology) (*Bench, error) {
	f, err := flows(t)
	if err != nil {
		return nil, fmt.Errorf("topology %s: %w", t.Name, err)
	}
	return &Bench{Topology: t, rules: t.Program(), flows: f, traffic: newTraffic(t), levels: levels(t)}, nil
}

// Quiet says that no packet can come in: there is nothing to judge.
func (b *Bench) Quiet() bool { return b.traffic.empty() }

// A Report is how packets fared.
type Report struct {
	Packets, Forwarded, Dropped, Passed int
	Tunnelled                           int // those among Forwarded that left by a tunnel
	Hardware                            int // those that hardware forwarded or dropped
	Decidable                           int // those of which Open vSwitch makes outputs to devices, or none, and nothing else
	Deliverable                         int // those among Decidable that have an output
	Translated                          int // those among Deliverable that leave with other addresses or ports
	Tied                                int // disagreements where Open vSwitch may take either of two rules
	Reasons                             map[string]int
	Wrong                               []Wrong // at most maxWrong
	WrongTotal                          int
}

// maxWrong is how many mistakes are described.
const maxWrong = 3

// A Wrong is a packet that shows a mistake.
type Wrong struct {
	Topology string
	Packet   uint64 // its number
	What     string
	Text     string // everything about it
}

// String returns all of it, with the way to have it again.
func (w Wrong) String() string {
	return fmt.Sprintf("-specialize.topology=%s -specialize.packet=%d: %s\n%s", w.Topology, w.Packet, w.What, w.Text)
}

// Add adds what o counts.
func (r *Report) Add(o Report) {
	r.Packets += o.Packets
	r.Forwarded += o.Forwarded
	r.Dropped += o.Dropped
	r.Passed += o.Passed
	r.Tunnelled += o.Tunnelled
	r.Hardware += o.Hardware
	r.Decidable += o.Decidable
	r.Deliverable += o.Deliverable
	r.Translated += o.Translated
	r.Tied += o.Tied
	r.WrongTotal += o.WrongTotal
	r.Wrong = append(r.Wrong, o.Wrong[:min(len(o.Wrong), max(0, maxWrong-len(r.Wrong)))]...)
	for reason, n := range o.Reasons {
		r.count(reason, n)
	}
}

func (r *Report) count(reason string, n int) {
	if r.Reasons == nil {
		r.Reasons = map[string]int{}
	}
	r.Reasons[reason] += n
}

// String returns the summary, and the most frequent reasons for passing packets.
func (r Report) String() string {
	share := func(n int) string { return fmt.Sprintf("%d (%.1f%%)", n, 100*float64(n)/float64(max(r.Packets, 1))) }
	var b strings.Builder
	fmt.Fprintf(&b, "%d packets: forwarded %s, of them %d through tunnels, dropped %s, passed %s; decidable %s, deliverable %s, of them %d translated; in hardware %d, tied %d, wrong %d",
		r.Packets, share(r.Forwarded), r.Tunnelled, share(r.Dropped), share(r.Passed), share(r.Decidable), share(r.Deliverable), r.Translated, r.Hardware, r.Tied, r.WrongTotal)
	reasons := slices.SortedFunc(maps.Keys(r.Reasons), func(a, b string) int { return r.Reasons[b] - r.Reasons[a] })
	for _, reason := range reasons[:min(len(reasons), 20)] {
		fmt.Fprintf(&b, "\n  passed: %6d %s", r.Reasons[reason], reason)
	}
	return b.String()
}

// Judge sends n packets, with the numbers from first on, through the rules, the flows, and the filters of p.
func (b *Bench) Judge(p Program, first uint64, n int) Report {
	return b.JudgeAll([]Program{p}, first, n)[0]
}

// JudgeAll is Judge for several programs.
func (b *Bench) JudgeAll(programs []Program, first uint64, n int) []Report {
	reports := make([]Report, len(programs))
	blocks := make([]blocks, len(programs))
	for i, p := range programs {
		blocks[i] = newBlocks(p)
	}
	for number := first; number < first+uint64(n); number++ {
		a, track := b.packet(number)
		o := eval.Options{Track: track, Length: a.length}
		r, err := b.rules.Run(a.packet, 0, o)
		flows, flowsErr := b.flows.Run(a.packet, 0, o)
		differ := same(r, flows, err, flowsErr)
		decidable := decidable(b.Topology, r, err)
		for i := range programs {
			report := &reports[i]
			report.Packets++
			if decidable {
				report.Decidable++
				if len(r.Outputs) > 0 {
					report.Deliverable++
					if slices.ContainsFunc(tupleFields, func(f ir.Field) bool { return r.Outputs[0].Packet.Value(f) != a.packet.Value(f) }) {
						report.Translated++
					}
				}
			}
			if differ != "" {
				b.wrong(report, number, differ)
			}
			b.judge(report, blocks[i], number, a, track, r, err)
		}
	}
	return reports
}

// blocks are the filters of a program in software and, if there is any, in hardware.
type blocks struct {
	Program
	software, hardware *eval.Block
}

func newBlocks(p Program) blocks {
	b := blocks{Program: p, software: eval.NewBlock(p.Filters)}
	if p.Hardware != nil {
		marked := slices.Clone(p.Filters)
		for i := range marked {
			if f := &marked[i]; f.Flags&tc.SkipHW == 0 && p.Hardware(f) {
				f.Flags |= tc.InHW
			}
		}
		b.hardware = eval.NewHardwareBlock(marked)
	}
	return b
}

// judge compares what filters make of a packet with what the rules made of it.
func (b *Bench) judge(report *Report, p blocks, number uint64, a arrival, track eval.Tracker, r eval.Result, err error) {
	v := p.software.Run(a.packet, a.from, track)
	switch v.Kind {
	case eval.Redirected:
		report.Forwarded++
		if v.Tunnel != nil {
			report.Tunnelled++
		}
	case eval.Dropped:
		report.Dropped++
	case eval.Passed:
		report.Passed++
		if n := len(v.Filters); n > 0 && p.Why != nil {
			report.count(p.Why(v.Filters[n-1]), 1)
		}
	case eval.Lost:
	}
	b.check(report, number, "", r, err, v)
	if p.hardware != nil {
		h := p.hardware.Run(a.packet, a.from, track)
		if h.Kind == eval.Redirected || h.Kind == eval.Dropped {
			report.Hardware++
		}
		b.check(report, number, "in hardware, ", r, err, h)
	}
}

func (b *Bench) check(report *Report, number uint64, where string, r eval.Result, err error, v eval.Verdict) {
	what := agree(b.Topology, r, err, v)
	switch {
	case what == "":
	case v.Kind != eval.Lost && v.Kind != eval.Passed && !v.Undefined && b.tied(number):
		report.Tied++
	default:
		b.wrong(report, number, where+what, v.Filters...)
	}
}

// packet returns the packet of a number and its connections. Four consecutive numbers have the same packet, and the next four
// often one that nearly is the same.
func (b *Bench) packet(number uint64) (arrival, eval.Tracker) {
	n := number / variants
	r := rand.New(rand.NewPCG(n, 1))
	if n%2 == 0 || r.IntN(3) == 0 {
		return b.traffic.draw(rand.New(rand.NewPCG(n, 0))), newTracker(b.traffic, number)
	}
	a := b.traffic.draw(rand.New(rand.NewPCG(n-1, 0)))
	b.traffic.sibling(r, &a)
	return a, newTracker(b.traffic, number)
}

// tupleFields are the fields that translation rewrites.
var tupleFields = []ir.Field{ir.IPSrc, ir.IPDst, ir.IPv6Src, ir.IPv6Dst, ir.TCPSrc, ir.TCPDst, ir.UDPSrc, ir.UDPDst, ir.SCTPSrc, ir.SCTPDst}

// decidable reports whether filters might decide.
func decidable(t *topology.Topology, r eval.Result, err error) bool {
	return err == nil && effects(r) == "" && !slices.ContainsFunc(r.Outputs, func(o eval.Output) bool {
		return slices.ContainsFunc(t.Patches, func(p topology.Port) bool { return uint32(p.OFPort) == o.Port })
	})
}

// wrong reports a mistake, and the filters that the packet has met.
func (b *Bench) wrong(report *Report, number uint64, what string, met ...*tc.Filter) {
	report.WrongTotal++
	if len(report.Wrong) >= maxWrong {
		return
	}
	first, rest, _ := strings.Cut(what, "\n")
	var text strings.Builder
	text.WriteString(rest)
	for _, f := range met {
		fmt.Fprintf(&text, "\nfilter %+v", *f)
	}
	text.WriteString("\n" + b.Explain(number))
	report.Wrong = append(report.Wrong, Wrong{b.Topology.Name, number, first, text.String()})
}

// Explain tells what the rules make of a packet.
func (b *Bench) Explain(number uint64) string {
	a, track := b.packet(number)
	var text strings.Builder
	fmt.Fprintf(&text, "packet from %s: %s, %d bytes\n", a.from.Device, formatPacket(&a.packet), a.length)
	r, err := b.rules.Run(a.packet, 0, eval.Options{
		Length: a.length,
		Track: func(zone uint16, p *eval.Packet) eval.Conn {
			c := track(zone, p)
			fmt.Fprintf(&text, "  ct %s\n", formatConn(zone, c))
			return c
		},
		Observe: func(s eval.Step) {
			switch s.Kind { //nolint:exhaustive // the others follow from these
			case eval.Lookup:
				if s.Rule == nil {
					fmt.Fprintf(&text, "%3d. no rule\n", s.Table)
					return
				}
				fmt.Fprintf(&text, "%3d. %s\n", s.Table, openflow.FormatFlow(&s.Rule.Rule))
			case eval.Transmit:
				fmt.Fprintf(&text, "  >> output %d: %s\n", s.Port, formatPacket(s.Packet))
			case eval.Note:
				fmt.Fprintf(&text, "  >> %s\n", s.Text)
			}
		},
	})
	fmt.Fprintf(&text, "%d outputs, %s", len(r.Outputs), effects(r))
	if err != nil {
		fmt.Fprintf(&text, ", %v", err)
	}
	return text.String()
}

// tied reports whether a packet meets a rule where another one of the same priority is met as well: either may be taken.
// ovn-northd makes such rules, most of them with the same actions.
func (b *Bench) tied(number uint64) bool {
	a, track := b.packet(number)
	found := false
	_, _ = b.rules.Run(a.packet, 0, eval.Options{Track: track, Length: a.length, Observe: func(s eval.Step) { // it has been run before
		if s.Kind != eval.Lookup || s.Rule == nil || found || len(b.levels[level{s.Table, s.Rule.Priority}]) == 1 {
			return
		}
		other := b.without(s.Rule).Lookup(s.Table, s.Packet)
		found = other != nil && openflow.FormatActions(other.Actions) != openflow.FormatActions(s.Rule.Actions)
	}})
	return found
}

// level is the rules of one table with one priority.
type level struct {
	table    uint8
	priority uint16
}

func levels(t *topology.Topology) map[level][]ir.Rule {
	all := map[level][]ir.Rule{}
	for _, r := range t.Rules() {
		l := level{r.Table, r.Priority}
		all[l] = append(all[l], r)
	}
	return all
}

// without returns the rules of the level of one of them without that one, and if it is for a conjunction, without its members.
func (b *Bench) without(met *eval.Rule) *eval.Program {
	id, conjunctive := met.Match.Term(ir.ConjID)
	var others []ir.Rule
	for _, r := range b.levels[level{met.Table, met.Priority}] {
		if r.Match.Equal(met.Match) {
			continue
		}
		members := len(r.Actions)
		if conjunctive {
			r.Actions = slices.DeleteFunc(slices.Clone(r.Actions), func(a ir.Action) bool {
				c, member := a.(ir.Conjunction)
				return member && uint64(c.ID) == id.Value.Lo
			})
		}
		if members == 0 || len(r.Actions) > 0 {
			others = append(others, r)
		}
	}
	var builder eval.Builder
	builder.Add(eval.Owner{}, others, nil)
	return builder.Program()
}
