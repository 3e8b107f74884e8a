package pinger

import (
	"net/netip"
	"strconv"
	"sync"
)

// An answerer answers. What it has is guarded by mu.
type answerer struct {
	now  func() int64
	wall func() int64 // CLOCK_REALTIME

	mu    sync.Mutex
	plan  Plan
	ports map[uint64]*port // by ID
	order []uint64         // of ports

	out   []byte
	inbox *inbox
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

// drain answers what has come to a port. While others send without end there are reports, too.
func (a *answerer) drain(p *port, to *socket) {
	for a.some(p, to) == inboxSize {
		continue
	}
}

// some answers what there is room for, and returns how many datagrams that was.
func (a *answerer) some(p *port, to *socket) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := a.inbox.receive(to.fd)
	for i := range n {
		if a.answer(p, to, i) {
			p.counts.Answered++
		} else {
			p.counts.Refused++
		}
	}
	return n
}

// answer answers what has come, if it is to be answered.
func (a *answerer) answer(p *port, to *socket, i int) bool {
	datagram, place := a.inbox.at(i)
	addr, from := place.addr()
	n := len(datagram)
	// What has not the size that was agreed on is not a message of a pair.
	if n != a.plan.Size || from != a.plan.Port+1 {
		return false
	}
	waited := int64(0)
	if arrived := a.inbox.stamp(i); arrived != 0 {
		waited = a.wall() - arrived
	}
	return p.book.reply(addr, datagram, a.out[:n], a.now(), waited) && sendTo(to.fd, a.out[:n], &place) == 0
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
