package chassis

import (
	"strconv"
	"strings"

	"github.com/offloadd/offloadd/pkg/ovsdb/vswitchdb"
)

// indexPrefix begins the keys of Open_vSwitch.other_config that give each agent of a host a character of its own for
// the names of its tunnel ports.
const indexPrefix = "ovn-chassis-idx-"

// bridgeUp makes the integration bridge and what belongs to it as they should be. It returns the bridge, or nil
// while there is none.
func (st *step) bridgeUp() *vswitchdb.Bridge {
	root := st.in.Switch.Root()
	st.storeIndex(root)
	if root.OtherConfig["vlan-limit"] != "0" {
		// The VLAN tags of a guest are payload, whatever their number.
		st.ovs.setKeys(vswitchdb.OpenvSwitchTable, root.UUID, "other_config", root.OtherConfig,
			map[string]string{"vlan-limit": "0"})
	}

	b := st.in.Switch.Bridge(st.cfg.Bridge)
	datapathType := st.cfg.bridgeDatapathType(b)
	if b == nil {
		st.createBridge(root, datapathType)
		return nil
	}
	set := map[string]any{}
	if b.DatapathType != datapathType {
		set["datapath_type"] = datapathType
	}
	if b.FailMode == nil || *b.FailMode != vswitchdb.BridgeFailModeSecure {
		set["fail_mode"] = vswitchdb.BridgeFailModeSecure
		st.notice(LevelWarn, "bridge fail-mode changed to secure", "bridge", b.Name)
	}
	if len(set) > 0 {
		st.ovs.add(Op{Kind: Update, Table: vswitchdb.BridgeTable, UUID: b.UUID, Set: set})
	}
	if _, ok := root.Datapaths[datapathType]; !ok {
		// ovs-vswitchd fills in what the datapath can do.
		name := st.ovs.name()
		st.ovs.add(Op{Kind: Insert, Table: vswitchdb.DatapathTable, Name: name, Set: map[string]any{"external_ids": map[string]string{}}})
		st.ovs.add(Op{Kind: Mutate, Table: vswitchdb.OpenvSwitchTable, UUID: root.UUID, Add: map[string]any{
			"datapaths": map[string]Ref{datapathType: {Name: name}},
		}})
	}
	st.ovs.setKeys(vswitchdb.BridgeTable, b.UUID, "external_ids", b.ExternalIDs, map[string]string{
		"ovn-startup-ts": strconv.FormatInt(st.opts.StartTime, 10),
	})
	return b
}

func (st *step) createBridge(root *vswitchdb.OpenvSwitch, datapathType string) {
	iface, port, bridge := st.ovs.name(), st.ovs.name(), st.ovs.name()
	st.ovs.add(Op{Kind: Insert, Table: vswitchdb.InterfaceTable, Name: iface, Set: map[string]any{
		"name": st.cfg.Bridge, "type": "internal",
	}})
	st.ovs.add(Op{Kind: Insert, Table: vswitchdb.PortTable, Name: port, Set: map[string]any{
		"name": st.cfg.Bridge, "interfaces": []Ref{{Name: iface}},
	}})
	config := map[string]string{"disable-in-band": "true"}
	if st.opts.BridgeMAC != "" {
		config["hwaddr"] = st.opts.BridgeMAC
	}
	st.ovs.add(Op{Kind: Insert, Table: vswitchdb.BridgeTable, Name: bridge, Set: map[string]any{
		"name": st.cfg.Bridge, "fail_mode": vswitchdb.BridgeFailModeSecure, "datapath_type": datapathType,
		"ports": []Ref{{Name: port}}, "other_config": config,
	}})
	if st.ovs.add(Op{Kind: Mutate, Table: vswitchdb.OpenvSwitchTable, UUID: root.UUID, Add: map[string]any{
		"bridges": []Ref{{Name: bridge}},
	}}) {
		st.tell("bridge created", "bridge", st.cfg.Bridge)
	}
}

// index returns this agent's character for tunnel names, which is none for the first agent of a host; ok says
// whether there is one that can be used.
func (st *step) index() (index string, ok bool) {
	index, ok = st.in.Switch.Root().OtherConfig[indexPrefix+st.cfg.Name]
	return index, ok && len(index) <= 1
}

// storeIndex takes the first index that no other agent of the host has.
func (st *step) storeIndex(root *vswitchdb.OpenvSwitch) {
	if _, ok := st.index(); ok {
		return
	}
	used := map[string]bool{}
	for key, value := range root.OtherConfig {
		if strings.HasPrefix(key, indexPrefix) {
			used[value] = true
		}
	}
	for i := -1; i < len(indexChars); i++ {
		index := ""
		if i >= 0 {
			index = indexChars[i : i+1]
		}
		if !used[index] {
			st.ovs.setKeys(vswitchdb.OpenvSwitchTable, root.UUID, "other_config", root.OtherConfig,
				map[string]string{indexPrefix + st.cfg.Name: index})
			return
		}
	}
	st.notice(LevelError, "tunnel names exhausted", "reason", "every "+indexPrefix+" is taken")
}

const indexChars = "0123456789abcdefghijklmnopqrstuvwxyz"
