package ledger

import "github.com/offloadd/offloadd/pkg/dpctl"

// Megaflows returns what the flows of Open vSwitch's datapath have counted that packets of these flows meet where they come in by a device, by the
// number of the datapath's flow. Other packets may meet them too.
func Megaflows(all []dpctl.Flow, device string, flows []Flow) map[string]uint64 {
	counted := map[string]uint64{}
	for i := range all {
		m := &all[i]
		if m.Recirc != 0 || m.InPort != device {
			continue
		}
		asks, _ := m.Match() // what cannot be said excludes nothing
		for j := range flows {
			if _, ok := asks.And(flows[j].match()); ok {
				counted[m.UFID] = m.Packets
				break
			}
		}
	}
	return counted
}

// Counted is what was counted between two calls of Megaflows. What flows had counted that have ended meanwhile is not in it.
func Counted(before, after map[string]uint64) (n uint64) {
	for ufid, packets := range after {
		n += packets - min(before[ufid], packets)
	}
	return n
}
