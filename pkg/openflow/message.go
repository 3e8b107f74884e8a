package openflow

import (
	"errors"
	"fmt"

	"github.com/offloadd/offloadd/pkg/ir"
)

// version is OpenFlow 1.5's number on the wire.
const version = 6

// headerSize is that of struct ofp_header, with which every message begins.
const headerSize = 8

// maxMessage is the longest message: its length field has 16 bits.
const maxMessage = 65535

// Message types (include/openflow/openflow-common.h and -1.5.h).
type msgType uint8

const (
	msgHello           msgType = 0
	msgError           msgType = 1
	msgEchoRequest     msgType = 2
	msgEchoReply       msgType = 3
	msgVendor          msgType = 4
	msgFeaturesRequest msgType = 5
	msgFeaturesReply   msgType = 6
	msgConfigRequest   msgType = 7
	msgConfigReply     msgType = 8
	msgSetConfig       msgType = 9
	msgPacketOut       msgType = 13
	msgFlowMod         msgType = 14
	msgGroupMod        msgType = 15
	msgMultipart       msgType = 18
	msgMultipartReply  msgType = 19
	msgBarrier         msgType = 20
	msgBarrierReply    msgType = 21
	msgMeterMod        msgType = 29
	msgBundleControl   msgType = 33
	msgBundleAdd       msgType = 34
)

// Subtypes of Nicira messages (NXT_* of include/openvswitch/ofp-msgs.h).
const (
	nxtSetPacketInFormat = 16
	nxtTLVTableMod       = 24
	nxtTLVTableRequest   = 25
	nxtTLVTableReply     = 26
	nxtCTFlushZone       = 29
)

// Multipart types (OFPMP_*).
const (
	mpFlowDesc    = 1
	mpGroupStats  = 6
	mpGroupDesc   = 7
	mpMeterConfig = 10
)

const multipartMore = 1 // OFPMPF_REPLY_MORE

// Bundle control types and flags (enum ofp14_bundle_ctrl_type, ofp14_bundle_flags).
const (
	bundleOpen    = 0
	bundleCommit  = 4
	bundleDiscard = 6

	bundleFlags = 1 | 2 // atomic, ordered
)

// Commands of flow-mod, group-mod and meter-mod.
const (
	cmdAdd          = 0
	cmdModify       = 1
	cmdModifyStrict = 2
	cmdFlowDelete   = 3
	cmdDeleteStrict = 4
	cmdGroupDelete  = 2
	cmdGroupInsert  = 3
	cmdMeterDelete  = 2
)

// AllTables is the table number of a [FlowDelete] that applies to all tables.
const AllTables = 0xff

// AllGroups is the group number of a [GroupDelete] that applies to all groups.
const AllGroups = 0xfffffffc

// ModKind says what a [Mod] does.
type ModKind uint8

const (
	// FlowAdd adds a flow, replacing the one with the same table, priority and match, whose counters restart.
	FlowAdd ModKind = iota + 1
	// FlowModifyStrict changes the actions of the flow with the same table, priority and match, keeping its
	// counters and cookie; if there is none, it adds one.
	FlowModifyStrict
	// FlowDeleteStrict deletes the flow with the same table, priority and match, if there is one.
	FlowDeleteStrict
	// FlowDelete deletes all flows of the table, or of [AllTables], that satisfy Match.
	FlowDelete
	// GroupAdd adds a group. It is refused if there is one with this number.
	GroupAdd
	// GroupModify replaces the contents of a group. It is refused if there is none.
	GroupModify
	// GroupInsert adds buckets at the end of a group. It is refused if there is none with this number.
	GroupInsert
	// GroupDelete deletes a group, or [AllGroups], and the flows that use it.
	GroupDelete
)

// Mod is one change of a bridge's tables or groups, encoded except for its frame.
type Mod struct {
	Kind     ModKind
	Table    uint8
	Priority uint16
	Cookie   uint64
	Group    uint32 // number of the group
	Match    string // bytes of AppendMatch
	Body     string // bytes of AppendActions, of AppendGroup for a group
}

// AddFlow returns the Mod that adds r.
func AddFlow(r *ir.Rule) Mod {
	return Mod{
		Kind:     FlowAdd,
		Table:    r.Table,
		Priority: r.Priority,
		Cookie:   r.Cookie,
		Match:    string(AppendMatch(nil, r.Match)),
		Body:     string(AppendActions(nil, r.Actions)),
	}
}

// AddGroup returns the Mod that adds g under the number id.
func AddGroup(id uint32, g *ir.SelectGroup) Mod {
	return Mod{Kind: GroupAdd, Group: id, Body: string(AppendGroup(nil, g))}
}

// GroupMods returns the mods that add a group ([GroupAdd]) or replace its contents ([GroupModify]). body is what
// [AppendGroup] has made of the contents. A group that is too long for one message takes several mods, to be made in
// their order.
func GroupMods(kind ModKind, id uint32, body string) []Mod {
	n := bucketsLen(body)
	buckets, properties := body[:n], body[n:]
	cut := cutBuckets(buckets, maxModSize-len(properties))
	mods := []Mod{{Kind: kind, Group: id, Body: buckets[:cut] + properties}}
	for buckets = buckets[cut:]; len(buckets) > 0; buckets = buckets[cut:] {
		cut = cutBuckets(buckets, maxModSize)
		mods = append(mods, Mod{Kind: GroupInsert, Group: id, Body: buckets[:cut]})
	}
	return mods
}

// cutBuckets returns the length of those buckets at the beginning that fit into size bytes, but of one at least.
func cutBuckets(buckets string, size int) int {
	n := 0
	for n < len(buckets) {
		next := n + int(buckets[n])<<8 + int(buckets[n+1])
		if n > 0 && next > size {
			break
		}
		n = next
	}
	return n
}

// ModError is a refused Mod: the one at Index of those that were passed.
type ModError struct {
	Index int
	Err   error // *Error if the switch refused it
}

func (e ModError) Error() string { return fmt.Sprintf("openflow mod %d: %v", e.Index, e.Err) }

func (e ModError) Unwrap() error { return e.Err }

// errTooLong is the cause of a message that does not fit into 65535 bytes.
var errTooLong = errors.New("longer than an OpenFlow message can be")

// beginMessage appends a header; endMessage fills in the length.
func beginMessage(b []byte, typ msgType, xid uint32) []byte {
	b = append(b, version, byte(typ), 0, 0)
	return be.AppendUint32(b, xid)
}

// endMessage completes the message that begins at start. It reports false if the message is too long.
func endMessage(b []byte, start int) ([]byte, bool) {
	n := len(b) - start
	if n > maxMessage {
		return b[:start], false
	}
	be.PutUint16(b[start+2:], uint16(n))
	return b, true
}

// appendMessage appends a message with the given body.
func appendMessage(b []byte, typ msgType, xid uint32, body []byte) ([]byte, bool) {
	start := len(b)
	b = beginMessage(b, typ, xid)
	b = append(b, body...)
	return endMessage(b, start)
}

func appendVendorMessage(b []byte, subtype uint32, xid uint32, body []byte) ([]byte, bool) {
	start := len(b)
	b = beginMessage(b, msgVendor, xid)
	b = be.AppendUint32(b, vendorNicira)
	b = be.AppendUint32(b, subtype)
	b = append(b, body...)
	return endMessage(b, start)
}

func appendBundleControl(b []byte, xid, bundle uint32, ctrl uint16) []byte {
	start := len(b)
	b = beginMessage(b, msgBundleControl, xid)
	b = be.AppendUint32(b, bundle)
	b = be.AppendUint16(b, ctrl)
	b = be.AppendUint16(b, bundleFlags)
	b, _ = endMessage(b, start)
	return b
}

// appendBundleAdd appends m as a message of the bundle. It reports false if it is too long.
func appendBundleAdd(b []byte, xid, bundle uint32, m *Mod) ([]byte, bool) {
	start := len(b)
	b = beginMessage(b, msgBundleAdd, xid)
	b = be.AppendUint32(b, bundle)
	b = append(b, 0, 0)
	b = be.AppendUint16(b, bundleFlags)
	b, ok := appendMod(b, xid, m)
	if !ok {
		return b[:start], false
	}
	return endMessage(b, start)
}

// appendMod appends the flow-mod or group-mod that m is. It reports false if it is too long.
func appendMod(b []byte, xid uint32, m *Mod) ([]byte, bool) {
	start := len(b)
	switch m.Kind {
	case FlowAdd:
		b = appendFlowMod(b, xid, cmdAdd, m)
	case FlowModifyStrict:
		b = appendFlowMod(b, xid, cmdModifyStrict, m)
	case FlowDeleteStrict:
		b = appendFlowMod(b, xid, cmdDeleteStrict, m)
	case FlowDelete:
		b = appendFlowMod(b, xid, cmdFlowDelete, m)
	case GroupAdd:
		b = appendGroupMod(b, xid, cmdAdd, m)
	case GroupModify:
		b = appendGroupMod(b, xid, cmdModify, m)
	case GroupInsert:
		b = appendGroupMod(b, xid, cmdGroupInsert, m)
	case GroupDelete:
		b = appendGroupMod(b, xid, cmdGroupDelete, m)
	default:
		panic(fmt.Sprintf("openflow: mod kind %d", m.Kind))
	}
	return endMessage(b, start)
}

// appendFlowMod appends a struct ofp11_flow_mod without timeouts, flags and importance.
func appendFlowMod(b []byte, xid uint32, command byte, m *Mod) []byte {
	b = beginMessage(b, msgFlowMod, xid)
	b = be.AppendUint64(b, m.Cookie)
	b = be.AppendUint64(b, 0) // cookie mask: cookies do not select flows
	b = append(b, m.Table, command, 0, 0, 0, 0)
	b = be.AppendUint16(b, m.Priority)
	b = be.AppendUint32(b, 0xffffffff) // no buffered packet
	b = be.AppendUint32(b, portAny)
	b = be.AppendUint32(b, groupAny)
	b = append(b, 0, 0, 0, 0)
	b = appendOFPMatch(b, m.Match)
	if len(m.Body) > 0 && m.Kind != FlowDelete && m.Kind != FlowDeleteStrict {
		b = be.AppendUint16(b, instApplyActions)
		b = be.AppendUint16(b, uint16(8+len(m.Body)))
		b = append(b, 0, 0, 0, 0)
		b = append(b, m.Body...)
	}
	return b
}

const instApplyActions = 4 // OFPIT11_APPLY_ACTIONS

// appendOFPMatch appends a struct ofp11_match_header, the TLVs and their padding.
func appendOFPMatch(b []byte, match string) []byte {
	start := len(b)
	b = be.AppendUint16(b, 1) // OFPMT_OXM
	b = be.AppendUint16(b, uint16(4+len(match)))
	b = append(b, match...)
	return pad8(b, start)
}

// appendGroupMod appends a struct ofp15_group_mod for a select group.
func appendGroupMod(b []byte, xid uint32, command uint16, m *Mod) []byte {
	b = beginMessage(b, msgGroupMod, xid)
	b = be.AppendUint16(b, command)
	b = append(b, groupSelect, 0)
	b = be.AppendUint32(b, m.Group)
	body, bucket := m.Body, uint32(bucketIDAll)
	if m.Kind == GroupDelete {
		body = ""
	}
	if m.Kind == GroupInsert {
		bucket = bucketIDLast
	}
	b = be.AppendUint16(b, uint16(bucketsLen(body)))
	b = append(b, 0, 0)
	b = be.AppendUint32(b, bucket)
	return append(b, body...)
}

// Buckets returns the number of buckets of what [AppendGroup] has made.
func Buckets(body string) int {
	count := 0
	for end, n := bucketsLen(body), 0; n < end; count++ {
		n += int(body[n])<<8 + int(body[n+1])
	}
	return count
}

// bucketsLen returns how much of a group's body is its array of buckets; the rest is properties.
func bucketsLen(body string) int {
	n := 0
	for n+4 <= len(body) {
		size := int(body[n])<<8 | int(body[n+1])
		if size == propExperimenter || size < 8 || n+size > len(body) {
			break
		}
		n += size
	}
	return n
}

// Meter is a rate limiter of the bridge. Its bands all drop.
type Meter struct {
	ID      uint32
	Packets bool // rates are in packets per second, not kilobits per second
	Burst   bool // bands have a burst size
	Stats   bool // count
	Bands   []Band
}

// Band is a rate above which packets are dropped, in the unit of its meter.
type Band struct{ Rate, Burst uint32 }

// Meter flags (enum ofp13_meter_flags).
const (
	meterKbps  = 1
	meterPktps = 2
	meterBurst = 4
	meterStats = 8

	meterBandDrop = 1
	meterBandSize = 16

	meterConfigSize = 8          // struct ofp13_meter_config without the bands
	allMeters       = 0xffffffff // OFPM13_ALL
)

func appendMeterMod(b []byte, xid uint32, command uint16, m *Meter) ([]byte, bool) {
	start := len(b)
	b = beginMessage(b, msgMeterMod, xid)
	flags := uint16(meterKbps)
	if m.Packets {
		flags = meterPktps
	}
	if m.Burst {
		flags |= meterBurst
	}
	if m.Stats {
		flags |= meterStats
	}
	b = be.AppendUint16(b, command)
	b = be.AppendUint16(b, flags)
	b = be.AppendUint32(b, m.ID)
	for _, band := range m.Bands {
		b = be.AppendUint16(b, meterBandDrop)
		b = be.AppendUint16(b, meterBandSize)
		b = be.AppendUint32(b, band.Rate)
		b = be.AppendUint32(b, band.Burst)
		b = append(b, 0, 0, 0, 0)
	}
	return endMessage(b, start)
}

// parseMeters reads the meters of an OFPMP_METER_CONFIG reply's body.
func parseMeters(b []byte, f func(Meter) error) error {
	for len(b) > 0 {
		if len(b) < meterConfigSize {
			return fmt.Errorf("openflow meter configuration: %d bytes left over", len(b))
		}
		n := int(be.Uint16(b))
		if n < meterConfigSize || n > len(b) || (n-meterConfigSize)%meterBandSize != 0 {
			return fmt.Errorf("openflow meter configuration: length %d of %d bytes", n, len(b))
		}
		flags := be.Uint16(b[2:])
		m := Meter{
			ID:      be.Uint32(b[4:]),
			Packets: flags&meterPktps != 0,
			Burst:   flags&meterBurst != 0,
			Stats:   flags&meterStats != 0,
		}
		for p := b[meterConfigSize:n]; len(p) > 0; p = p[meterBandSize:] {
			if typ, size := be.Uint16(p), be.Uint16(p[2:]); typ != meterBandDrop || size != meterBandSize {
				return fmt.Errorf("openflow meter %d: band of type %d and %d bytes: not supported", m.ID, typ, size)
			}
			m.Bands = append(m.Bands, Band{Rate: be.Uint32(p[4:]), Burst: be.Uint32(p[8:])})
		}
		if err := f(m); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// meterConfigRequest is the body of an OFPMP_METER_CONFIG request for all meters.
func meterConfigRequest() []byte {
	b := be.AppendUint16(nil, mpMeterConfig)
	b = append(b, 0, 0, 0, 0, 0, 0)
	b = be.AppendUint32(b, allMeters)
	return append(b, 0, 0, 0, 0)
}

// TLV maps a Geneve option to a tun_metadata field (struct nx_tlv_map).
type TLV struct {
	Class uint16
	Type  uint8
	Len   uint8  // bytes, a multiple of 4
	Index uint16 // the n of tun_metadata<n>
}

// TLVTable is the state of a bridge's mapping of Geneve options.
type TLVTable struct {
	MaxSpace  uint32 // bytes of options that fit
	MaxFields uint16
	TLVs      []TLV // in the order of the reply
}

const tlvAdd, tlvDelete = 0, 1 // enum nx_tlv_table_mod_command

func tlvTableModBody(command uint16, tlvs []TLV) []byte {
	b := be.AppendUint16(nil, command)
	b = append(b, 0, 0, 0, 0, 0, 0)
	for _, t := range tlvs {
		b = be.AppendUint16(b, t.Class)
		b = append(b, t.Type, t.Len)
		b = be.AppendUint16(b, t.Index)
		b = append(b, 0, 0)
	}
	return b
}

// parseTLVTable reads the part of an NXT_TLV_TABLE_REPLY that follows the vendor header.
func parseTLVTable(b []byte) (TLVTable, error) {
	if len(b) < 16 || len(b)%8 != 0 {
		return TLVTable{}, fmt.Errorf("openflow TLV table reply: %d bytes", len(b))
	}
	t := TLVTable{MaxSpace: be.Uint32(b), MaxFields: be.Uint16(b[4:])}
	for b = b[16:]; len(b) > 0; b = b[8:] {
		t.TLVs = append(t.TLVs, TLV{Class: be.Uint16(b), Type: b[2], Len: b[3], Index: be.Uint16(b[4:])})
	}
	return t, nil
}

// Sizes of the fixed parts of struct ofp15_flow_desc, ofp15_group_desc_stats and ofp13_group_stats, and of struct
// ofp11_bucket_counter.
const (
	flowDescSize    = 24
	groupDescSize   = 16
	groupStatsSize  = 40
	bucketStatsSize = 16
)

// FlowStats is a flow as the bridge describes it.
type FlowStats struct {
	Table                    uint8
	Priority                 uint16
	Cookie                   uint64
	IdleTimeout, HardTimeout uint16 // seconds, 0: none
	Flags                    uint16 // OFPFF_*
	Importance               uint16
	Match                    []byte // as AppendMatch writes it
	Actions                  []byte // as AppendActions writes it
	// Other says that the flow has instructions besides one apply-actions: it is not one that AddFlow makes.
	Other                   bool
	PacketCount, ByteCount  uint64
	DurationSec, IdleAgeSec uint32 // seconds since it was added, since it was last used
}

// Statistics of a flow: field numbers of OXS class 0x8002.
const (
	classStat      = 0x8002
	statDuration   = 0
	statIdleTime   = 1
	statPackets    = 4
	statBytes      = 5
	statHeaderSize = 4
)

// parseFlows reads the flows of an OFPMP_FLOW_DESC reply's body and passes each to f. Match and Actions are parts
// of b.
func parseFlows(b []byte, f func(*FlowStats) error) error {
	for len(b) > 0 {
		if len(b) < flowDescSize {
			return fmt.Errorf("openflow flow description: %d bytes left over", len(b))
		}
		n := int(be.Uint16(b))
		if n < flowDescSize || n > len(b) {
			return fmt.Errorf("openflow flow description: length %d of %d bytes", n, len(b))
		}
		var s FlowStats
		if err := s.parse(b[:n]); err != nil {
			return err
		}
		if err := f(&s); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// parse reads a struct ofp15_flow_desc, the match, the statistics and the instructions.
func (s *FlowStats) parse(b []byte) error {
	s.Table = b[4]
	s.Priority = be.Uint16(b[6:])
	s.IdleTimeout = be.Uint16(b[8:])
	s.HardTimeout = be.Uint16(b[10:])
	s.Flags = be.Uint16(b[12:])
	s.Importance = be.Uint16(b[14:])
	s.Cookie = be.Uint64(b[16:])
	b = b[flowDescSize:]

	match, b, err := cutPadded(b, "flow description match")
	if err != nil {
		return err
	}
	s.Match = match
	stats, b, err := cutPadded(b, "flow statistics")
	if err != nil {
		return err
	}
	if err := s.parseStats(stats); err != nil {
		return err
	}
	if len(b) == 0 {
		return nil
	}
	if len(b) >= 8 && be.Uint16(b) == instApplyActions && int(be.Uint16(b[2:])) == len(b) {
		s.Actions = b[8:]
		return nil
	}
	s.Other = true
	return nil
}

// cutPadded splits off a structure of a 16-bit something, a 16-bit length that counts both, contents and padding
// to a multiple of 8 bytes. It returns the contents and what follows the padding.
func cutPadded(b []byte, what string) (contents, rest []byte, err error) {
	if len(b) < 4 {
		return nil, nil, fmt.Errorf("openflow %s: %d bytes", what, len(b))
	}
	n := int(be.Uint16(b[2:]))
	padded := (n + 7) / 8 * 8
	if n < 4 || padded > len(b) {
		return nil, nil, fmt.Errorf("openflow %s: length %d of %d bytes", what, n, len(b))
	}
	return b[4:n], b[padded:], nil
}

func (s *FlowStats) parseStats(b []byte) error {
	for len(b) > 0 {
		if len(b) < statHeaderSize || len(b) < statHeaderSize+int(b[3]) {
			return fmt.Errorf("openflow flow statistics: %d bytes left over", len(b))
		}
		class, field, size := be.Uint16(b), b[2]>>1, int(b[3])
		value := b[statHeaderSize : statHeaderSize+size]
		b = b[statHeaderSize+size:]
		if class != classStat || size != 8 {
			continue
		}
		switch v := be.Uint64(value); field {
		case statDuration:
			s.DurationSec = uint32(v >> 32)
		case statIdleTime:
			s.IdleAgeSec = uint32(v >> 32)
		case statPackets:
			s.PacketCount = v
		case statBytes:
			s.ByteCount = v
		}
	}
	return nil
}

// GroupDesc is a group as the bridge describes it.
type GroupDesc struct {
	ID     uint32
	Select bool   // it is of type select
	Body   []byte // as AppendGroup writes it
}

// parseGroups reads the groups of an OFPMP_GROUP_DESC reply's body. Bodies are parts of b.
func parseGroups(b []byte, f func(*GroupDesc) error) error {
	for len(b) > 0 {
		if len(b) < groupDescSize {
			return fmt.Errorf("openflow group description: %d bytes left over", len(b))
		}
		n := int(be.Uint16(b))
		if n < groupDescSize || n > len(b) {
			return fmt.Errorf("openflow group description: length %d of %d bytes", n, len(b))
		}
		d := GroupDesc{ID: be.Uint32(b[4:]), Select: b[2] == groupSelect, Body: b[groupDescSize:n]}
		if err := f(&d); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// GroupStats is what the bridge says about a group without describing it.
type GroupStats struct {
	ID      uint32
	Buckets int
}

// parseGroupStats reads the groups of an OFPMP_GROUP reply's body.
func parseGroupStats(b []byte, f func(GroupStats) error) error {
	for len(b) > 0 {
		if len(b) < groupStatsSize {
			return fmt.Errorf("openflow group statistics: %d bytes left over", len(b))
		}
		n := int(be.Uint16(b))
		if n < groupStatsSize || n > len(b) || (n-groupStatsSize)%bucketStatsSize != 0 {
			return fmt.Errorf("openflow group statistics: length %d of %d bytes", n, len(b))
		}
		if err := f(GroupStats{be.Uint32(b[4:]), (n - groupStatsSize) / bucketStatsSize}); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// A FlowFilter selects the flows of Table, or of [AllTables], whose cookie is Cookie in the bits that are set in Mask.
type FlowFilter struct {
	Table        uint8
	Cookie, Mask uint64
}

// flowDescRequest is the body of an OFPMP_FLOW_DESC request.
func flowDescRequest(f FlowFilter) []byte {
	b := be.AppendUint16(nil, mpFlowDesc)
	b = append(b, 0, 0, 0, 0, 0, 0)
	b = append(b, f.Table, 0, 0, 0)
	b = be.AppendUint32(b, portAny)
	b = be.AppendUint32(b, groupAny)
	b = append(b, 0, 0, 0, 0)
	b = be.AppendUint64(b, f.Cookie)
	b = be.AppendUint64(b, f.Mask)
	return appendOFPMatch(b, "")
}

// groupRequest is the body of an OFPMP_GROUP or OFPMP_GROUP_DESC request for one group, or for [AllGroups].
func groupRequest(typ uint16, group uint32) []byte {
	b := be.AppendUint16(nil, typ)
	b = append(b, 0, 0, 0, 0, 0, 0)
	b = be.AppendUint32(b, group)
	return append(b, 0, 0, 0, 0)
}

// packetOut is the body of an OFPT_PACKET_OUT.
func packetOut(inPort uint16, actions []ir.Action, packet []byte) []byte {
	b := be.AppendUint32(nil, 0xffffffff) // no buffered packet
	b = append(b, 0, 0, 0, 0)
	b = appendOFPMatch(b, string(AppendMatch(nil, ir.Match{}.Eq(ir.InPort, uint64(inPort)))))
	start := len(b)
	b = AppendActions(b, actions)
	be.PutUint16(b[4:], uint16(len(b)-start))
	return append(b, packet...)
}
