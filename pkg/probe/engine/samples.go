package engine

import (
	"slices"

	"github.com/offloadd/offloadd/pkg/probe/result"
	"github.com/offloadd/offloadd/pkg/probe/stats"
)

const (
	// blockSize is how many requests of a path a block has at least, and maxBlocks how many blocks a session.
	blockSize = 1000
	maxBlocks = 64
)

// session is what the path has measured. Its notes are what it lacks.
func (e *engine) session(p *path) (*result.Session, []string, error) {
	s := &result.Session{Elapsed: p.elapsed, Octets: p.octets, Loss: p.loss, CPU: [2]result.CPU{e.client.split(p.cpu[0]), e.server.split(p.cpu[1])}, Transactions: p.transactions}
	var notes []string
	if p.stream != nil {
		s.Background = p.stream.report()
		s.CPU = [2]result.CPU{} // whoever runs has handled packets of the stream
	}
	if e.tcp() {
		s.TCP = p.tcpInfo()
	}
	if p.client != nil && p.server != nil && !e.tcp() {
		s.Packets = [2]int64{p.client.sent, p.server.sent}
	}
	if p.stamps != nil {
		var why string
		if s.Segments, why = p.stamps.segments(); why != "" {
			notes = append(notes, why)
		}
		if p.unclocked != "" {
			notes = append(notes, p.unclocked)
		}
		s.OneWay = p.stamps.oneWay()
		return s, notes, nil
	}
	if len(p.took) == 0 {
		return s, notes, nil
	}
	var err error
	if s.Histogram, err = histogram(p.took); err != nil {
		return nil, nil, err
	}
	if len(p.timers) > 0 {
		if s.TCP.Waited, err = histogram(p.timers); err != nil {
			return nil, nil, err
		}
	}
	if p.sent != nil {
		if s.FromSend, err = histogram(p.sent); err != nil {
			return nil, nil, err
		}
	}
	s.Jitter = jitter(p.took)
	s.Blocks = blocks(p.took, p.marks)
	return s, notes, nil
}

// tcpInfo is what tcp_info has said of the path's connection, or of those that it had.
func (p *path) tcpInfo() *result.TCP {
	if r := p.resends; r != nil {
		return &result.TCP{Retransmits: r.since(), RTO: r.rto, Timeouts: int64(len(p.timers))}
	}
	return &result.TCP{Retransmits: p.retransmits + p.resent, RTO: p.rto, Timeouts: int64(len(p.timers))}
}

func histogram(took []int64) (string, error) {
	h := stats.NewHistogram()
	for _, t := range took {
		if err := h.RecordValue(min(max(t, stats.Lowest), stats.Highest)); err != nil {
			return "", err
		}
	}
	return stats.Encode(h)
}

// jitter is RFC 3550, section 6.4.1: J += (|D| - J) / 16, for each round trip. It is the mean of J, which has the same expectation as its last
// value and does not depend on the last few round trips alone.
func jitter(took []int64) float64 {
	if len(took) < 2 {
		return 0
	}
	var j, sum float64
	for i := 1; i < len(took); i++ {
		d := took[i] - took[i-1]
		j += (float64(max(d, -d)) - j) / 16
		sum += j
	}
	return sum / float64(len(took)-1)
}

// blocks are the median and the 99th percentile of what is between marks, of which there may be too many or none.
func blocks(took []int64, marks []mark) [][2]int64 {
	each := (len(marks) + maxBlocks - 1) / maxBlocks
	if each == 0 {
		return nil
	}
	var blocks [][2]int64
	last := mark{}
	for i := each - 1; i < len(marks); i += each {
		m := marks[i]
		sorted := slices.Sorted(slices.Values(took[last.took:m.took]))
		gone := m.lost - last.lost
		blocks = append(blocks, [2]int64{quantile(sorted, gone, 0.5), quantile(sorted, gone, 0.99)})
		last = m
	}
	return blocks
}

// quantile is that of sorted and of lost more, which are infinitely late.
func quantile(sorted []int64, lost int, q float64) int64 {
	i := int(q * float64(len(sorted)+lost))
	if i >= len(sorted) {
		return result.Lost
	}
	return sorted[i]
}
