package chassis

import (
	"cmp"
	"maps"
	"slices"

	"github.com/offloadd/offloadd/pkg/ovsdb/sbdb"
	"github.com/offloadd/offloadd/pkg/sb"
)

// Clause is one condition of a conditional monitor, ovsdb-server(7), section 4.1.12. The zero Clause holds for
// every row.
type Clause struct {
	Column   string
	Function string // "==", "!=" or "includes"
	Value    any    // as in Op
}

// String returns the clause as one would say it.
func (c Clause) String() string {
	if c.Column == "" {
		return "true"
	}
	return c.Column + " " + c.Function + " " + formatValue(c.Value)
}

func equal(column string, v any) Clause    { return Clause{column, "==", v} }
func includes(column string, v any) Clause { return Clause{column, "includes", v} }

// conditions says which rows concern the chassis called name: me is its row, nil while unknown; ifaces are the
// iface-ids on the integration bridge; local are the local datapaths.
//
// Patch ports are always wanted: they tell which datapaths a local port can reach before those are known.
// Datapath groups are wanted whole, since a logical flow may arrive together with its group and the group's rows
// are replaced, not changed, when a datapath joins.
func conditions(name string, me *sb.Chassis, ifaces []string, local map[sb.UUID]*LocalDatapath) map[string][]Clause {
	ports := []Clause{equal("type", sb.Patch), equal("type", sb.ChassisRedirect), equal("type", sb.External)}
	cond := map[string][]Clause{
		sbdb.ChassisPrivateTable: {equal("name", name)},
		sbdb.LogicalFlowTable:    {},
		sbdb.LogicalDPGroupTable: {{}},
		sbdb.MACBindingTable:     {},
		sbdb.MulticastGroupTable: {},
		sbdb.DNSTable:            {},
		sbdb.IPMulticastTable:    {},
	}
	if me == nil {
		// Ports of gateways may turn out to be ours as soon as the own row is known.
		ports = append(ports, equal("type", sb.L2Gateway), equal("type", sb.L3Gateway))
		cond[sbdb.ControllerEventTable] = []Clause{}
		cond[sbdb.IGMPGroupTable] = []Clause{}
		cond[sbdb.ChassisTemplateVarTable] = []Clause{}
	} else {
		self := Ref{UUID: me.UUID.String()}
		ports = append(ports,
			equal("chassis", self),
			equal("requested_chassis", self),
			includes("options", map[string]string{"l2gateway-chassis": name}),
			includes("options", map[string]string{"l3gateway-chassis": name}))
		cond[sbdb.ControllerEventTable] = []Clause{equal("chassis", self)}
		cond[sbdb.IGMPGroupTable] = []Clause{equal("chassis", self)}
		cond[sbdb.ChassisTemplateVarTable] = []Clause{equal("chassis", name)}
	}
	for _, id := range ifaces {
		ports = append(ports, equal("logical_port", id), equal("parent_port", id))
	}
	for _, uuid := range sortedUUIDs(maps.Keys(local)) {
		dp := Ref{UUID: uuid.String()}
		ports = append(ports, equal("datapath", dp))
		for table, column := range map[string]string{
			sbdb.LogicalFlowTable:    "logical_datapath",
			sbdb.MACBindingTable:     "datapath",
			sbdb.MulticastGroupTable: "datapath",
			sbdb.IPMulticastTable:    "datapath",
		} {
			cond[table] = append(cond[table], equal(column, dp))
		}
		cond[sbdb.DNSTable] = append(cond[sbdb.DNSTable], includes("datapaths", []Ref{dp}))
	}
	if len(local) > 0 {
		cond[sbdb.LogicalFlowTable] = append(cond[sbdb.LogicalFlowTable], Clause{"logical_dp_group", "!=", nil})
	}
	cond[sbdb.PortBindingTable] = ports
	return cond
}

func sortedUUIDs(seq func(yield func(sb.UUID) bool)) []sb.UUID {
	return slices.SortedFunc(seq, compareUUIDs)
}

func compareUUIDs(a, b sb.UUID) int { return slices.Compare(a[:], b[:]) }

func equalConditions(a, b map[string][]Clause) bool {
	if (a == nil) != (b == nil) {
		return false
	}
	return maps.EqualFunc(a, b, func(x, y []Clause) bool { return slices.EqualFunc(x, y, equalClauses) })
}

func equalClauses(a, b Clause) bool {
	return cmp.Or(cmp.Compare(a.Column, b.Column), cmp.Compare(a.Function, b.Function)) == 0 &&
		formatValue(a.Value) == formatValue(b.Value)
}
