package compile

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/openflow"
	"github.com/offloadd/offloadd/pkg/sb"
)

// Largest identifiers of groups (OFPG_MAX) and of meters: datapaths have room for few meters.
const (
	maxGroupID = 0xffffff00
	maxMeterID = 0xffff
)

// identifiers hands out the identifiers of groups or of meters. Equal things share one, which is where their hash says,
// so that it is the same after a restart unless hashes collide. Who has taken one releases it in the end.
type identifiers struct {
	max    uint32
	byKey  map[string]*identifier
	issued map[uint32]*identifier
}

type identifier struct {
	id    uint32
	key   string
	users int
}

func newIdentifiers(most uint32) identifiers {
	return identifiers{most, map[string]*identifier{}, map[uint32]*identifier{}}
}

// take returns the identifier of what key stands for, in 1..max; 0 if none is left.
func (t *identifiers) take(key string) uint32 {
	if i := t.byKey[key]; i != nil {
		i.users++
		return i.id
	}
	if uint64(len(t.issued)) >= uint64(t.max) {
		return 0
	}
	id := 1 + fnv1a(key)%t.max
	for t.issued[id] != nil {
		id = 1 + id%t.max
	}
	i := &identifier{id, key, 1}
	t.byKey[key], t.issued[id] = i, i
	return id
}

func (t *identifiers) release(id uint32) {
	i := t.issued[id]
	if i.users--; i.users == 0 {
		delete(t.issued, id)
		delete(t.byKey, i.key)
	}
}

func fnv1a[T string | []byte](key T) uint32 {
	h := uint32(2166136261)
	for i := range len(key) {
		h = (h ^ uint32(key[i])) * 16777619
	}
	return h
}

// group returns the identifier of g, which the rules in s use from now on.
func (e *Engine) group(s *sink, g ir.SelectGroup) uint32 {
	key := sha256.Sum256(openflow.AppendGroup(nil, &g)) // groups may be long
	id := e.groups.take(string(key[:]))
	if _, again := s.groups[id]; again {
		e.groups.release(id)
	} else if id != 0 {
		if s.groups == nil {
			s.groups = map[uint32]ir.SelectGroup{}
		}
		s.groups[id] = g
	}
	return id
}

// meter returns the identifier of a meter that the rules of row use and no others, which s uses from now on. Rates
// beyond the range of OpenFlow are its largest.
func (e *Engine) meter(s *sink, row sb.UUID, rate, burst uint64) uint32 {
	m := ir.RateMeter{Rate: uint32(min(rate, 1<<32-1)), Burst: uint32(min(burst, 1<<32-1))}
	key := binary.BigEndian.AppendUint32(row[:], m.Rate)
	key = binary.BigEndian.AppendUint32(key, m.Burst)
	return e.takeMeter(s, string(key), m)
}

// namedMeter returns the identifier of a row of Meter, which s uses from now on. It stays when the row's limits change. 0:
// there is no such row, or no identifier is left.
func (e *Engine) namedMeter(s *sink, name string) uint32 {
	m, ok := e.view.meter(name)
	if !ok {
		return 0
	}
	return e.takeMeter(s, "meter "+name, m)
}

// takeMeter returns the identifier of m, which is what key stands for now.
func (e *Engine) takeMeter(s *sink, key string, m ir.RateMeter) uint32 {
	id := e.meters.take(key)
	if _, again := s.meters[id]; again {
		e.meters.release(id)
	} else if id != 0 {
		if s.meters == nil {
			s.meters = map[uint32]ir.RateMeter{}
		}
		s.meters[id] = m
	}
	return id
}

// A part is what the engine remembers of the rules of a logical flow in one datapath.
type part struct {
	key            uint32 // of the datapath
	groups, meters []uint32
}

func newPart(key uint32, s *sink) part {
	p := part{key: key}
	for id := range s.groups {
		p.groups = append(p.groups, id)
	}
	for id := range s.meters {
		p.meters = append(p.meters, id)
	}
	return p
}

// release gives the identifiers of p's groups and meters back.
func (e *Engine) release(p part) {
	for _, id := range p.groups {
		e.groups.release(id)
	}
	for _, id := range p.meters {
		e.meters.release(id)
	}
}
