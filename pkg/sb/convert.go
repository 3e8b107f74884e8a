package sb

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"

	"github.com/offloadd/offloadd/pkg/ovsdb/sbdb"
)

// Update is what the Southbound says of one row: New is a pointer to its generated type, or nil if the row is gone.
type Update struct {
	Table string // as in ovn-sb(5)
	UUID  string
	New   any
}

// Apply takes rows as the Southbound sends them, in any order, and returns what changed. Tables that no chassis needs
// are ignored. A row that says nothing new makes no change.
func (s *Store) Apply(updates []Update) Delta {
	var d Delta
	for _, u := range updates {
		id, err := ParseUUID(u.UUID)
		if err != nil {
			d.Refused = append(d.Refused, RefusedRow{u.Table, id, err})
			continue
		}
		old := s.row(u.Table, id)
		var now Row
		if u.New != nil {
			now, err = convert(u.New)
			if err != nil {
				now = nil
				err = fmt.Errorf("sb %s %s: %w", u.Table, u.UUID, err)
				if s.refused[id] != err.Error() {
					s.refused[id] = err.Error()
					d.Refused = append(d.Refused, RefusedRow{u.Table, id, err})
				}
			}
		}
		if err == nil {
			if _, was := s.refused[id]; was {
				delete(s.refused, id)
				d.Accepted = append(d.Accepted, id)
			}
		}
		if old == nil && now == nil || old != nil && now != nil && reflect.DeepEqual(old, now) {
			continue
		}
		d.Changes = append(d.Changes, Change{old, now})
	}
	// Names move between rows within one update, so everything old goes before anything new comes.
	for _, c := range d.Changes {
		if c.Old != nil {
			s.remove(c.Old)
		}
	}
	for _, c := range d.Changes {
		if c.New != nil {
			s.insert(c.New)
		}
	}
	return d
}

// row returns the row of a table, or nil.
func (s *Store) row(table string, id UUID) Row {
	switch table {
	case "Datapath_Binding":
		return orNil(s.Datapaths[id])
	case "Port_Binding":
		return orNil(s.Ports[id])
	case "Logical_Flow":
		return orNil(s.LogicalFlows[id])
	case "Logical_DP_Group":
		return orNil(s.DatapathGroups[id])
	case "Multicast_Group":
		return orNil(s.MulticastGroups[id])
	case "MAC_Binding":
		return orNil(s.MACBindings[id])
	case "Static_MAC_Binding":
		return orNil(s.StaticBindings[id])
	case "FDB":
		return orNil(s.FDBs[id])
	case "Address_Set":
		return orNil(s.AddressSets[id])
	case "Port_Group":
		return orNil(s.PortGroups[id])
	case "Chassis":
		return orNil(s.Chassis[id])
	case "Chassis_Private":
		return orNil(s.ChassisPrivates[id])
	case "Encap":
		return orNil(s.Encaps[id])
	case "SB_Global":
		if s.Global != nil && s.Global.UUID == id {
			return s.Global
		}
	case "HA_Chassis_Group":
		return orNil(s.HAChassisGroups[id])
	case "HA_Chassis":
		return orNil(s.HAChassis[id])
	case "Meter":
		return orNil(s.Meters[id])
	case "Meter_Band":
		return orNil(s.MeterBands[id])
	case "Chassis_Template_Var":
		return orNil(s.TemplateVars[id])
	}
	return nil
}

// orNil makes a nil pointer a nil Row.
func orNil[T any, P interface {
	*T
	Row
}](p P) Row {
	if p == nil {
		return nil
	}
	return p
}

// convert checks a generated row and turns it into one of this package's. It returns nil for tables that no chassis
// needs.
func convert(row any) (Row, error) {
	var c checker
	out := c.row(row)
	if c.err != nil {
		return nil, c.err
	}
	return out, nil
}

// A checker converts column values and remembers the first that cannot be used.
type checker struct{ err error }

func (c *checker) fail(format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf(format, args...)
	}
}

func (c *checker) uuid(s string) UUID {
	u, err := ParseUUID(s)
	if err != nil {
		c.fail("%w", err)
	}
	return u
}

func (c *checker) ref(s *string) UUID {
	if s == nil {
		return UUID{}
	}
	return c.uuid(*s)
}

// refs returns references in the order of the UUIDs.
func (c *checker) refs(list []string) []UUID {
	if len(list) == 0 {
		return nil
	}
	out := make([]UUID, len(list))
	for i, s := range list {
		out[i] = c.uuid(s)
	}
	slices.SortFunc(out, func(a, b UUID) int { return slices.Compare(a[:], b[:]) })
	return out
}

func (c *checker) within(column string, v, lo, hi int) int {
	if v < lo || v > hi {
		c.fail("%s %d: not within %d..%d", column, v, lo, hi)
	}
	return v
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func (c *checker) row(row any) Row {
	switch r := row.(type) {
	case *sbdb.DatapathBinding:
		dp := &Datapath{
			UUID:            c.uuid(r.UUID),
			Key:             uint32(c.within("tunnel_key", r.TunnelKey, 1, MaxDatapathKey)),
			Name:            r.ExternalIDs["name"],
			IsTransitSwitch: r.ExternalIDs["interconn-ts"] != "",
			MACBindingAge:   seconds(r.ExternalIDs["mac_binding_age_threshold"]),
			FDBAge:          seconds(r.ExternalIDs["fdb_age_threshold"]),
		}
		_, dp.IsSwitch = r.ExternalIDs["logical-switch"]
		if zone, ok := r.ExternalIDs["snat-ct-zone"]; ok {
			dp.CommonNATZoneIsSNAT = true
			var n uint16
			if _, err := fmt.Sscanf(zone, "%d", &n); err == nil {
				dp.SNATZone = n
			}
		}
		return dp
	case *sbdb.PortBinding:
		p := &Port{
			UUID:                       c.uuid(r.UUID),
			Name:                       r.LogicalPort,
			Type:                       r.Type,
			Datapath:                   c.uuid(r.Datapath),
			Key:                        uint32(c.within("tunnel_key", r.TunnelKey, 1, MaxPortKey)),
			Parent:                     text(r.ParentPort),
			Chassis:                    c.ref(r.Chassis),
			AdditionalChassis:          c.refs(r.AdditionalChassis),
			Encap:                      c.ref(r.Encap),
			AdditionalEncap:            c.refs(r.AdditionalEncap),
			RequestedChassis:           c.ref(r.RequestedChassis),
			RequestedAdditionalChassis: c.refs(r.RequestedAdditionalChassis),
			HAChassisGroup:             c.ref(r.HaChassisGroup),
			Options:                    r.Options,
			MAC:                        r.MAC,
			PortSecurity:               r.PortSecurity,
			VirtualParent:              text(r.VirtualParent),
		}
		if r.Tag != nil {
			p.Tag = uint16(c.within("tag", *r.Tag, 0, 4095))
		}
		if r.Up != nil {
			p.Up, p.UpSet = *r.Up, true
		}
		if p.Name == "" {
			c.fail("logical_port is empty")
		}
		return p
	case *sbdb.LogicalFlow:
		f := &LogicalFlow{
			UUID:            c.uuid(r.UUID),
			Datapath:        c.ref(r.LogicalDatapath),
			Group:           c.ref(r.LogicalDpGroup),
			Priority:        uint16(c.within("priority", r.Priority, 0, 65535)),
			Match:           r.Match,
			Actions:         r.Actions,
			InOutPort:       r.Tags["in_out_port"],
			ControllerMeter: text(r.ControllerMeter),
		}
		switch r.Pipeline {
		case sbdb.LogicalFlowPipelineIngress:
			f.Table = uint8(c.within("table_id", r.TableID, 0, maxIngressTable))
		case sbdb.LogicalFlowPipelineEgress:
			f.Egress = true
			f.Table = uint8(c.within("table_id", r.TableID, 0, maxEgressTable))
		default:
			c.fail("pipeline %q: neither ingress nor egress", r.Pipeline)
		}
		return f
	case *sbdb.LogicalDPGroup:
		return &DatapathGroup{UUID: c.uuid(r.UUID), Datapaths: c.refs(r.Datapaths)}
	case *sbdb.MulticastGroup:
		return &MulticastGroup{
			UUID:     c.uuid(r.UUID),
			Name:     r.Name,
			Datapath: c.uuid(r.Datapath),
			Key:      uint32(c.within("tunnel_key", r.TunnelKey, MinMulticastKey, MaxMulticastKey)),
			Ports:    c.refs(r.Ports),
		}
	case *sbdb.MACBinding:
		return &MACBinding{UUID: c.uuid(r.UUID), Port: r.LogicalPort, IP: r.IP, MAC: r.MAC, Datapath: c.uuid(r.Datapath)}
	case *sbdb.StaticMACBinding:
		return &StaticMACBinding{
			UUID: c.uuid(r.UUID), Port: r.LogicalPort, IP: r.IP, MAC: r.MAC,
			Datapath: c.uuid(r.Datapath), Override: r.OverrideDynamicMAC,
		}
	case *sbdb.FDB:
		return &FDB{
			UUID:        c.uuid(r.UUID),
			MAC:         r.MAC,
			DatapathKey: uint32(c.within("dp_key", r.DpKey, 1, MaxDatapathKey)),
			PortKey:     uint32(c.within("port_key", r.PortKey, 1, MaxDatapathKey)),
		}
	case *sbdb.AddressSet:
		return &AddressSet{UUID: c.uuid(r.UUID), Name: r.Name, Addresses: r.Addresses}
	case *sbdb.PortGroup:
		return &PortGroup{UUID: c.uuid(r.UUID), Name: r.Name, Ports: r.Ports}
	case *sbdb.Chassis:
		if r.Name == "" {
			c.fail("name is empty")
		}
		return &Chassis{
			UUID: c.uuid(r.UUID), Name: r.Name, Hostname: r.Hostname, Encaps: c.refs(r.Encaps),
			OtherConfig: r.OtherConfig, TransportZones: r.TransportZones,
		}
	case *sbdb.ChassisPrivate:
		return &ChassisPrivate{
			UUID: c.uuid(r.UUID), Name: r.Name, Chassis: c.ref(r.Chassis),
			NBCfg: int64(r.NbCfg), NBCfgTimestamp: int64(r.NbCfgTimestamp),
		}
	case *sbdb.Encap:
		return &Encap{UUID: c.uuid(r.UUID), Type: r.Type, IP: r.IP, Options: r.Options, ChassisName: r.ChassisName}
	case *sbdb.SBGlobal:
		return &Global{UUID: c.uuid(r.UUID), NBCfg: int64(r.NbCfg), Options: r.Options, IPsec: r.Ipsec}
	case *sbdb.HAChassisGroup:
		return &HAChassisGroup{UUID: c.uuid(r.UUID), Name: r.Name, HAChassis: c.refs(r.HaChassis), RefChassis: c.refs(r.RefChassis)}
	case *sbdb.HAChassis:
		return &HAChassis{UUID: c.uuid(r.UUID), Chassis: c.ref(r.Chassis), Priority: r.Priority}
	case *sbdb.Meter:
		return &Meter{UUID: c.uuid(r.UUID), Name: r.Name, Unit: r.Unit, Bands: c.refs(r.Bands)}
	case *sbdb.MeterBand:
		return &MeterBand{UUID: c.uuid(r.UUID), Rate: int64(r.Rate), Burst: int64(r.BurstSize)}
	case *sbdb.ChassisTemplateVar:
		return &TemplateVars{UUID: c.uuid(r.UUID), Chassis: r.Chassis, Variables: r.Variables}
	}
	return nil
}

// seconds reads a number of seconds as smap_get_uint of Open vSwitch does: what is none counts as 0.
func seconds(s string) uint32 {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 0
	}
	return uint32(n)
}

// The last logical tables for which OVN 23.03 has OpenFlow tables (controller/lflow.h).
const (
	maxIngressTable = 28
	maxEgressTable  = 21
)
