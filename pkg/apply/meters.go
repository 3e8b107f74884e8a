package apply

import (
	"fmt"

	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/openflow"
)

// MeterMod is a change of a meter. Meters cannot be part of a bundle.
type MeterMod struct {
	ID     uint32
	Meter  ir.RateMeter
	Modify bool // there is a meter with this number already
}

// MeterMods returns the meters to be made or changed before the flows that use them, and the numbers of those to be
// deleted after the flows that used them. Both are sorted by number and taken as done, as those of Mods.
func (t *FlowTable) MeterMods() (wanted []MeterMod, unwanted []uint32) {
	changes, unwanted := t.meters.changes()
	for _, c := range changes {
		wanted = append(wanted, MeterMod{c.id, c.want, c.modify})
	}
	return wanted, unwanted
}

// RefusedMeter tells that the switch did not accept m.
func (t *FlowTable) RefusedMeter(m MeterMod) {
	t.meters.refuse(m.ID, m.Modify)
}

// OwnersOfMeter returns the rows that want a meter, in the order of their UUIDs.
func (t *FlowTable) OwnersOfMeter(id uint32) [][16]byte { return rowsOf(t.meters.ownersOf(id)) }

// InstalledMeter tells that the switch has a meter. The zero RateMeter stands for one that is none.
func (t *FlowTable) InstalledMeter(id uint32, m ir.RateMeter) { t.meters.has(id, m) }

// switchMeter returns m as the switch has it: with statistics, as those of ovn-controller.
func switchMeter(m MeterMod) openflow.Meter {
	return openflow.Meter{
		ID:      m.ID,
		Packets: m.Meter.Packets,
		Burst:   m.Meter.Burst != 0,
		Stats:   true,
		Bands:   []openflow.Band{{Rate: m.Meter.Rate, Burst: m.Meter.Burst}},
	}
}

// rateMeter is the inverse of switchMeter. It returns the zero RateMeter for a meter that switchMeter does not make.
func rateMeter(m openflow.Meter) ir.RateMeter {
	switch {
	case !m.Stats || len(m.Bands) != 1:
		return ir.RateMeter{}
	case !m.Burst:
		return ir.RateMeter{Packets: m.Packets, Rate: m.Bands[0].Rate} // its burst is what the switch has chosen
	case m.Bands[0].Burst == 0:
		return ir.RateMeter{}
	}
	return ir.RateMeter{Packets: m.Packets, Rate: m.Bands[0].Rate, Burst: m.Bands[0].Burst}
}

// formatMeter returns the meter as ovs-ofctl(8) takes it.
func formatMeter(m MeterMod) string {
	unit := "kbps"
	if m.Meter.Packets {
		unit = "pktps"
	}
	if m.Meter.Burst == 0 {
		return fmt.Sprintf("meter=%d %s stats bands=type=drop rate=%d", m.ID, unit, m.Meter.Rate)
	}
	return fmt.Sprintf("meter=%d %s burst stats bands=type=drop rate=%d burst_size=%d", m.ID, unit, m.Meter.Rate, m.Meter.Burst)
}
