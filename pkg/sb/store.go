package sb

import (
	"maps"
	"slices"
)

// Row is a pointer to one of the row types of this package.
type Row interface{ id() UUID }

func (r *Datapath) id() UUID         { return r.UUID }
func (r *Port) id() UUID             { return r.UUID }
func (r *LogicalFlow) id() UUID      { return r.UUID }
func (r *DatapathGroup) id() UUID    { return r.UUID }
func (r *MulticastGroup) id() UUID   { return r.UUID }
func (r *MACBinding) id() UUID       { return r.UUID }
func (r *StaticMACBinding) id() UUID { return r.UUID }
func (r *FDB) id() UUID              { return r.UUID }
func (r *AddressSet) id() UUID       { return r.UUID }
func (r *PortGroup) id() UUID        { return r.UUID }
func (r *Chassis) id() UUID          { return r.UUID }
func (r *ChassisPrivate) id() UUID   { return r.UUID }
func (r *Encap) id() UUID            { return r.UUID }
func (r *Global) id() UUID           { return r.UUID }
func (r *HAChassisGroup) id() UUID   { return r.UUID }
func (r *HAChassis) id() UUID        { return r.UUID }
func (r *Meter) id() UUID            { return r.UUID }
func (r *MeterBand) id() UUID        { return r.UUID }
func (r *TemplateVars) id() UUID     { return r.UUID }

// Change is the replacement of one row. Old is nil for an inserted row, New for a deleted one; otherwise both are
// pointers to the same type.
type Change struct{ Old, New Row }

// Delta is what one update changed: rows, and rows that were refused. Refused rows are absent from the Store.
type Delta struct {
	Changes []Change
	Refused []RefusedRow
	// Accepted lists rows that were refused before and are not any more, or are gone.
	Accepted []UUID
}

// RefusedRow is a Southbound row that no chassis can use.
type RefusedRow struct {
	Table string
	UUID  UUID
	Err   error
}

// Store holds the rows a chassis knows, with the indexes the compiler asks for.
type Store struct {
	Datapaths       map[UUID]*Datapath
	Ports           map[UUID]*Port
	LogicalFlows    map[UUID]*LogicalFlow
	DatapathGroups  map[UUID]*DatapathGroup
	MulticastGroups map[UUID]*MulticastGroup
	MACBindings     map[UUID]*MACBinding
	StaticBindings  map[UUID]*StaticMACBinding
	FDBs            map[UUID]*FDB
	AddressSets     map[UUID]*AddressSet
	PortGroups      map[UUID]*PortGroup
	Chassis         map[UUID]*Chassis
	ChassisPrivates map[UUID]*ChassisPrivate
	Encaps          map[UUID]*Encap
	HAChassisGroups map[UUID]*HAChassisGroup
	HAChassis       map[UUID]*HAChassis
	Meters          map[UUID]*Meter
	MeterBands      map[UUID]*MeterBand
	TemplateVars    map[UUID]*TemplateVars
	Global          *Global // nil until known

	datapathByKey    map[uint32]*Datapath
	portByName       map[string]*Port
	portsByDatapath  index[*Port]
	childrenByParent map[string]map[UUID]*Port
	flowsByDatapath  index[*LogicalFlow]
	flowsByGroup     index[*LogicalFlow]
	groupsByDatapath index[*DatapathGroup]
	mcastByDatapath  index[*MulticastGroup]
	mcastByPort      index[*MulticastGroup]
	macByDatapath    index[*MACBinding]
	staticByDatapath index[*StaticMACBinding]
	fdbByDatapath    map[uint32]map[UUID]*FDB
	addressSetByName map[string]*AddressSet
	portGroupByName  map[string]*PortGroup
	portGroupsByPort map[string]map[UUID]*PortGroup
	chassisByName    map[string]*Chassis
	meterByName      map[string]*Meter
	refused          map[UUID]string
}

type index[R Row] map[UUID]map[UUID]R

func (x index[R]) add(key UUID, r R) {
	if key.IsZero() {
		return
	}
	m := x[key]
	if m == nil {
		m = map[UUID]R{}
		x[key] = m
	}
	m[r.id()] = r
}

func (x index[R]) del(key UUID, r R) {
	if m := x[key]; m != nil {
		delete(m, r.id())
		if len(m) == 0 {
			delete(x, key)
		}
	}
}

// NewStore returns an empty store.
func NewStore() *Store {
	return &Store{
		Datapaths:        map[UUID]*Datapath{},
		Ports:            map[UUID]*Port{},
		LogicalFlows:     map[UUID]*LogicalFlow{},
		DatapathGroups:   map[UUID]*DatapathGroup{},
		MulticastGroups:  map[UUID]*MulticastGroup{},
		MACBindings:      map[UUID]*MACBinding{},
		StaticBindings:   map[UUID]*StaticMACBinding{},
		FDBs:             map[UUID]*FDB{},
		AddressSets:      map[UUID]*AddressSet{},
		PortGroups:       map[UUID]*PortGroup{},
		Chassis:          map[UUID]*Chassis{},
		ChassisPrivates:  map[UUID]*ChassisPrivate{},
		Encaps:           map[UUID]*Encap{},
		HAChassisGroups:  map[UUID]*HAChassisGroup{},
		HAChassis:        map[UUID]*HAChassis{},
		Meters:           map[UUID]*Meter{},
		MeterBands:       map[UUID]*MeterBand{},
		TemplateVars:     map[UUID]*TemplateVars{},
		datapathByKey:    map[uint32]*Datapath{},
		portByName:       map[string]*Port{},
		portsByDatapath:  index[*Port]{},
		childrenByParent: map[string]map[UUID]*Port{},
		flowsByDatapath:  index[*LogicalFlow]{},
		flowsByGroup:     index[*LogicalFlow]{},
		groupsByDatapath: index[*DatapathGroup]{},
		mcastByDatapath:  index[*MulticastGroup]{},
		mcastByPort:      index[*MulticastGroup]{},
		macByDatapath:    index[*MACBinding]{},
		staticByDatapath: index[*StaticMACBinding]{},
		fdbByDatapath:    map[uint32]map[UUID]*FDB{},
		addressSetByName: map[string]*AddressSet{},
		portGroupByName:  map[string]*PortGroup{},
		portGroupsByPort: map[string]map[UUID]*PortGroup{},
		chassisByName:    map[string]*Chassis{},
		meterByName:      map[string]*Meter{},
		refused:          map[UUID]string{},
	}
}

// DatapathByKey returns the datapath with the given tunnel key, or nil.
func (s *Store) DatapathByKey(key uint32) *Datapath { return s.datapathByKey[key] }

// PortByName returns the port with the given logical_port, or nil.
func (s *Store) PortByName(name string) *Port { return s.portByName[name] }

// PortsOf returns the ports of a datapath. The caller does not change the map.
func (s *Store) PortsOf(dp UUID) map[UUID]*Port { return s.portsByDatapath[dp] }

// ChildrenOf returns the ports whose parent_port is name. The caller does not change the map.
func (s *Store) ChildrenOf(name string) map[UUID]*Port { return s.childrenByParent[name] }

// FlowsOf returns the logical flows that name the datapath itself, not through a group. The caller does not change the map.
func (s *Store) FlowsOf(dp UUID) map[UUID]*LogicalFlow { return s.flowsByDatapath[dp] }

// FlowsOfGroup returns the logical flows of a datapath group. The caller does not change the map.
func (s *Store) FlowsOfGroup(group UUID) map[UUID]*LogicalFlow { return s.flowsByGroup[group] }

// GroupsOf returns the datapath groups that contain dp. The caller does not change the map.
func (s *Store) GroupsOf(dp UUID) map[UUID]*DatapathGroup { return s.groupsByDatapath[dp] }

// MulticastGroupsOf returns the multicast groups of a datapath. The caller does not change the map.
func (s *Store) MulticastGroupsOf(dp UUID) map[UUID]*MulticastGroup { return s.mcastByDatapath[dp] }

// MulticastGroupsWith returns the multicast groups that contain a port. The caller does not change the map.
func (s *Store) MulticastGroupsWith(port UUID) map[UUID]*MulticastGroup { return s.mcastByPort[port] }

// MulticastGroup returns the group of dp with the given name, or nil.
func (s *Store) MulticastGroup(dp UUID, name string) *MulticastGroup {
	for _, g := range s.mcastByDatapath[dp] {
		if g.Name == name {
			return g
		}
	}
	return nil
}

// MACBindingsOf returns the learned neighbours of a datapath. The caller does not change the map.
func (s *Store) MACBindingsOf(dp UUID) map[UUID]*MACBinding { return s.macByDatapath[dp] }

// StaticBindingsOf returns the configured neighbours of a datapath. The caller does not change the map.
func (s *Store) StaticBindingsOf(dp UUID) map[UUID]*StaticMACBinding { return s.staticByDatapath[dp] }

// FDBsOf returns the learned addresses of the datapath with the given key. The caller does not change the map.
func (s *Store) FDBsOf(key uint32) map[UUID]*FDB { return s.fdbByDatapath[key] }

// AddressSetByName returns an address set, or nil.
func (s *Store) AddressSetByName(name string) *AddressSet { return s.addressSetByName[name] }

// PortGroupByName returns a port group by its Southbound name, or nil.
func (s *Store) PortGroupByName(name string) *PortGroup { return s.portGroupByName[name] }

// PortGroupsWith returns the port groups that name a port. The caller does not change the map.
func (s *Store) PortGroupsWith(port string) map[UUID]*PortGroup { return s.portGroupsByPort[port] }

// ChassisByName returns a chassis, or nil.
func (s *Store) ChassisByName(name string) *Chassis { return s.chassisByName[name] }

// MeterByName returns a meter, or nil.
func (s *Store) MeterByName(name string) *Meter { return s.meterByName[name] }

// Refused returns the number of rows that are refused now.
func (s *Store) Refused() int { return len(s.refused) }

// Sorted returns the rows of m ordered by UUID.
func Sorted[R Row](m map[UUID]R) []R {
	return slices.SortedFunc(maps.Values(m), func(a, b R) int {
		x, y := a.id(), b.id()
		return slices.Compare(x[:], y[:])
	})
}

func (s *Store) insert(row Row) {
	switch r := row.(type) {
	case *Datapath:
		s.Datapaths[r.UUID] = r
		s.datapathByKey[r.Key] = r
	case *Port:
		s.Ports[r.UUID] = r
		s.portByName[r.Name] = r
		s.portsByDatapath.add(r.Datapath, r)
		if r.Parent != "" {
			addKeyed(s.childrenByParent, r.Parent, r)
		}
	case *LogicalFlow:
		s.LogicalFlows[r.UUID] = r
		s.flowsByDatapath.add(r.Datapath, r)
		s.flowsByGroup.add(r.Group, r)
	case *DatapathGroup:
		s.DatapathGroups[r.UUID] = r
		for _, dp := range r.Datapaths {
			s.groupsByDatapath.add(dp, r)
		}
	case *MulticastGroup:
		s.MulticastGroups[r.UUID] = r
		s.mcastByDatapath.add(r.Datapath, r)
		for _, p := range r.Ports {
			s.mcastByPort.add(p, r)
		}
	case *MACBinding:
		s.MACBindings[r.UUID] = r
		s.macByDatapath.add(r.Datapath, r)
	case *StaticMACBinding:
		s.StaticBindings[r.UUID] = r
		s.staticByDatapath.add(r.Datapath, r)
	case *FDB:
		s.FDBs[r.UUID] = r
		addKeyed(s.fdbByDatapath, r.DatapathKey, r)
	case *AddressSet:
		s.AddressSets[r.UUID] = r
		s.addressSetByName[r.Name] = r
	case *PortGroup:
		s.PortGroups[r.UUID] = r
		s.portGroupByName[r.Name] = r
		for _, p := range r.Ports {
			addKeyed(s.portGroupsByPort, p, r)
		}
	case *Chassis:
		s.Chassis[r.UUID] = r
		s.chassisByName[r.Name] = r
	case *ChassisPrivate:
		s.ChassisPrivates[r.UUID] = r
	case *Encap:
		s.Encaps[r.UUID] = r
	case *Global:
		s.Global = r
	case *HAChassisGroup:
		s.HAChassisGroups[r.UUID] = r
	case *HAChassis:
		s.HAChassis[r.UUID] = r
	case *Meter:
		s.Meters[r.UUID] = r
		s.meterByName[r.Name] = r
	case *MeterBand:
		s.MeterBands[r.UUID] = r
	case *TemplateVars:
		s.TemplateVars[r.UUID] = r
	}
}

func (s *Store) remove(row Row) {
	switch r := row.(type) {
	case *Datapath:
		delete(s.Datapaths, r.UUID)
		dropNamed(s.datapathByKey, r.Key, r)
	case *Port:
		delete(s.Ports, r.UUID)
		dropNamed(s.portByName, r.Name, r)
		s.portsByDatapath.del(r.Datapath, r)
		delKeyed(s.childrenByParent, r.Parent, r)
	case *LogicalFlow:
		delete(s.LogicalFlows, r.UUID)
		s.flowsByDatapath.del(r.Datapath, r)
		s.flowsByGroup.del(r.Group, r)
	case *DatapathGroup:
		delete(s.DatapathGroups, r.UUID)
		for _, dp := range r.Datapaths {
			s.groupsByDatapath.del(dp, r)
		}
	case *MulticastGroup:
		delete(s.MulticastGroups, r.UUID)
		s.mcastByDatapath.del(r.Datapath, r)
		for _, p := range r.Ports {
			s.mcastByPort.del(p, r)
		}
	case *MACBinding:
		delete(s.MACBindings, r.UUID)
		s.macByDatapath.del(r.Datapath, r)
	case *StaticMACBinding:
		delete(s.StaticBindings, r.UUID)
		s.staticByDatapath.del(r.Datapath, r)
	case *FDB:
		delete(s.FDBs, r.UUID)
		delKeyed(s.fdbByDatapath, r.DatapathKey, r)
	case *AddressSet:
		delete(s.AddressSets, r.UUID)
		dropNamed(s.addressSetByName, r.Name, r)
	case *PortGroup:
		delete(s.PortGroups, r.UUID)
		dropNamed(s.portGroupByName, r.Name, r)
		for _, p := range r.Ports {
			delKeyed(s.portGroupsByPort, p, r)
		}
	case *Chassis:
		delete(s.Chassis, r.UUID)
		dropNamed(s.chassisByName, r.Name, r)
	case *ChassisPrivate:
		delete(s.ChassisPrivates, r.UUID)
	case *Encap:
		delete(s.Encaps, r.UUID)
	case *Global:
		if s.Global == r {
			s.Global = nil
		}
	case *HAChassisGroup:
		delete(s.HAChassisGroups, r.UUID)
	case *HAChassis:
		delete(s.HAChassis, r.UUID)
	case *Meter:
		delete(s.Meters, r.UUID)
		dropNamed(s.meterByName, r.Name, r)
	case *MeterBand:
		delete(s.MeterBands, r.UUID)
	case *TemplateVars:
		delete(s.TemplateVars, r.UUID)
	}
}

// dropNamed removes m[key] if it is r: a row that took over the name in the same update stays.
func dropNamed[K comparable, R comparable](m map[K]R, key K, r R) {
	if m[key] == r {
		delete(m, key)
	}
}

func addKeyed[K comparable, R Row](m map[K]map[UUID]R, key K, r R) {
	if m[key] == nil {
		m[key] = map[UUID]R{}
	}
	m[key][r.id()] = r
}

func delKeyed[K comparable, R Row](m map[K]map[UUID]R, key K, r R) {
	if set := m[key]; set != nil {
		delete(set, r.id())
		if len(set) == 0 {
			delete(m, key)
		}
	}
}
