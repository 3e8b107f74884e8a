package monitor

import (
	"fmt"

	"github.com/offloadd/offloadd/internal/statefile"
	"github.com/offloadd/offloadd/pkg/probe/pinger"
)

// A memory is a file of how far pairs were offloaded at best: a daemon that has been replaced by one that offloads less must not begin with what it finds. Empty is none.
type memory string

// A memento is of one side of a pair, as long as its ends are the same.
type memento struct {
	Pair
	Answers bool        `json:"answers,omitempty"`
	Ends    pinger.Pair `json:"ends"` // without a number
	Best    Level       `json:"best"`
}

// maxMemory bounds the file in octets.
const maxMemory = 4 << 20

func (m memory) read() (map[Side]memento, error) {
	all := map[Side]memento{}
	var list []memento
	if _, err := statefile.Read(string(m), maxMemory, &list); err != nil {
		return all, fmt.Errorf("monitor memory: %w", err)
	}
	for _, k := range list {
		all[Side{k.Pair, k.Answers}] = k
	}
	return all, nil
}

func (m memory) write(list []memento) error {
	if err := statefile.Write(string(m), list); err != nil {
		return fmt.Errorf("monitor memory: %w", err)
	}
	return nil
}

// endsOf is a pair for the pinger without its number, which is of one daemon.
func endsOf(p pinger.Pair) pinger.Pair { return pinger.Pair{From: p.From, To: p.To} }

// remember notes how far pairs are offloaded at best, if that is news. mu is held.
func (m *Monitor) remember() {
	news := false
	for p, t := range m.sides {
		if t.ends == nil || t.path.best == Unknown {
			continue
		}
		k := memento{p.Pair, p.Answers, endsOf(*t.ends), t.path.best}
		if m.known[p] != k {
			m.known[p], news = k, true
		}
	}
	if !news {
		return
	}
	var list []memento
	for _, p := range m.options.Config.Pairs { // what is not configured any more is forgotten
		for _, answers := range []bool{false, true} {
			if k, ok := m.known[Side{p, answers}]; ok {
				list = append(list, k)
			}
		}
	}
	if err := m.memory.write(list); err != nil {
		m.options.Log.Warn("offload of probes not remembered", "err", err)
	}
}
