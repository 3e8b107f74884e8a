package pinger

import (
	"net/netip"
	"strconv"
	"sync"
)

// An answerer answers. What it has is guarded by mu.
type answerer struct {
	now func() int64

	mu    sync.Mutex
	plan  Plan
	ports map[uint64]*port // by ID
	order []uint64         // of ports

	datagram, out []byte
	from          place
}

// A port is who answers.
type port struct {
	Answer
	socket *socket // nil: none
	broken string  // why
	book   book
	counts AnswerReport // for the next report; its Error is not used
	told   string       // the error of the last report
}

// drain answers what has come to a port.
func (a *answerer) drain(p *port, to *socket) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for {
		n, ok := receiveFrom(to.fd, a.datagram, &a.from)
		if !ok {
			return
		}
		addr, from := a.from.addr()
		// What has not the size that was agreed on is not a message of a pair.
		if n != a.plan.Size || from != a.plan.Port+1 || !p.book.reply(addr, a.datagram[:n], a.out[:n], a.now()) || sendTo(to.fd, a.out[:n], &a.from) != 0 {
			p.counts.Refused++
			continue
		}
		p.counts.Answered++
	}
}

// report appends what there is to report, with a comma after each port.
func (a *answerer) report(b []byte) []byte {
	for _, id := range a.order {
		p := a.ports[id]
		if p.counts == (AnswerReport{}) && p.broken == p.told {
			continue
		}
		b = strconv.AppendUint(append(b, `{"id":`...), id, 10)
		b = appendCount(b, `,"answered":`, p.counts.Answered)
		b = appendCount(b, `,"refused":`, p.counts.Refused)
		b = append(appendText(b, `,"error":`, p.broken), "},"...)
	}
	return b
}

// reported says that the report has arrived.
func (a *answerer) reported() {
	for _, p := range a.ports {
		p.counts, p.told = AnswerReport{}, p.broken
	}
}

// admit makes the book's guests those of a list. It answers twice as much as is agreed on, for who is held up and catches up.
func (k *book) admit(list []netip.Addr, plan Plan, now int64) {
	guests := map[[16]byte]*guest{}
	k.burst = int64(2 * plan.Burst)
	k.every = int64(plan.Interval) / k.burst
	for _, a := range list {
		g := k.guests[a.As16()]
		if g == nil {
			g = &guest{token: random(), credit: k.burst * k.every, seen: now}
		}
		guests[a.As16()] = g
	}
	k.guests = guests
}
