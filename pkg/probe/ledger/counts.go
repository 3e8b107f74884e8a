package ledger

import (
	"github.com/offloadd/offloadd/pkg/specialize"
	"github.com/offloadd/offloadd/pkg/tc"
)

// Counts are the packets that the filters of a flow have counted. What hardware leaves to software is counted there once more.
type Counts struct {
	Entered   Split // where packets come in
	Forwarded Split // sent to a device
	Dropped   Split
	Left      Split // left to Open vSwitch
	// Filters is how many there are, InHW how many of them are in hardware, and Forwarders how many forward.
	Filters, InHW, Forwarders int
}

// A Split is packets by who counted them.
type Split struct{ Hardware, Software uint64 }

// Read adds up what filters have counted, by flow. Filters that are no probe's are passed over.
func Read(all []*tc.Installed) map[uint32]Counts {
	flows := map[uint32]Counts{}
	for _, in := range all {
		id, ok := specialize.ProbeFlow(in.Filter.Cookie)
		if !ok || len(in.Actions) == 0 {
			continue
		}
		first := in.Actions[0] // every packet that matches runs it
		n := Split{first.HWPackets, first.Packets - min(first.HWPackets, first.Packets)}
		c := flows[id]
		c.Filters++
		if in.Filter.Flags&tc.InHW != 0 {
			c.InHW++
		}
		if in.Filter.Chain == 0 {
			c.Entered = c.Entered.plus(n)
		}
		switch verdict(in.Filter.Actions).(type) {
		case tc.Pass:
			c.Left = c.Left.plus(n)
		case tc.Drop:
			c.Dropped = c.Dropped.plus(n)
		case tc.Mirred:
			c.Forwarders++
			c.Forwarded = c.Forwarded.plus(n)
		}
		flows[id] = c
	}
	return flows
}

func (s Split) plus(n Split) Split { return Split{s.Hardware + n.Hardware, s.Software + n.Software} }

// minus reports false if s is less than before: a filter was made anew between the two.
func (s Split) minus(before Split) (Split, bool) {
	return Split{s.Hardware - before.Hardware, s.Software - before.Software}, s.Hardware >= before.Hardware && s.Software >= before.Software
}

// Since returns what was counted since before. It reports false if a filter was made anew meanwhile, or is another one: what it had counted is lost.
func (c Counts) Since(before Counts) (Counts, bool) {
	d, ok := c, c.Filters == before.Filters
	for _, p := range []struct {
		to            *Split
		after, before Split
	}{
		{&d.Entered, c.Entered, before.Entered},
		{&d.Forwarded, c.Forwarded, before.Forwarded},
		{&d.Dropped, c.Dropped, before.Dropped},
		{&d.Left, c.Left, before.Left},
	} {
		var more bool
		*p.to, more = p.after.minus(p.before)
		ok = ok && more
	}
	return d, ok
}

// Arrived is how many packets have come in. What hardware has left to Open vSwitch comes in once more in software.
func (c Counts) Arrived() uint64 {
	return c.Entered.Hardware + c.Entered.Software - min(c.Left.Hardware, c.Entered.Software)
}
