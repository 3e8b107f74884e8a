package openflow

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/offloadd/offloadd/pkg/ir"
)

// flow returns the Mod that adds a flow to table 1 that is told apart by its number.
func flow(n int, actions ...ir.Action) Mod {
	return AddFlow(&ir.Rule{Table: 1, Priority: 10, Cookie: uint64(n), Match: ir.Match{}.Eq(ir.Metadata, uint64(n)), Actions: actions})
}

// dump returns what ovs-ofctl prints.
func (b *testBridge) dump(t *testing.T) []string {
	t.Helper()
	return lines(b.ofctl(t, "--no-names", "--no-stats", "dump-flows", "br0"))
}

func TestRefusedModsAreNamedAndNothingIsDone(t *testing.T) {
	b, c := prepare(t)
	commit(t, c, []Mod{flow(1, ir.Output{Port: 1})})
	before := b.dump(t)

	lacksEtherType := AddFlow(&ir.Rule{Table: 1, Match: ir.Match{}.Eq(ir.IPSrc, 1)})
	noSuchTable := flow(2)
	noSuchTable.Table = 254
	garbled := flow(3)
	garbled.Body = "garbled!"
	tooLong := flow(4, ir.Note{Data: make([]byte, 70000)})

	for _, c1 := range []struct {
		name string
		bad  map[int]Mod
		want []string
	}{
		{"prerequisite", map[int]Mod{7: lacksEtherType}, []string{"7 OFPBMC_BAD_PREREQ"}},
		{"first", map[int]Mod{0: lacksEtherType}, []string{"0 OFPBMC_BAD_PREREQ"}},
		{"last", map[int]Mod{999: garbled}, []string{"999 OFPBAC_BAD_TYPE"}},
		{"several", map[int]Mod{3: noSuchTable, 500: garbled, 998: lacksEtherType}, []string{
			"3 OFPBRC_EPERM", "500 OFPBAC_BAD_TYPE", "998 OFPBMC_BAD_PREREQ",
		}},
		{"no such group", map[int]Mod{10: flow(5, ir.Group{ID: 77})}, []string{"10 OFPBAC_BAD_OUT_GROUP"}},
		{"no such meter", map[int]Mod{10: flow(5, ir.Meter{ID: 77})}, []string{"10 OFPMMFC_INVALID_METER"}},
		// Refused only when the bundle is committed, so only the first is known.
		{"group exists", map[int]Mod{10: AddGroup(1, &ir.SelectGroup{}), 20: AddGroup(2, &ir.SelectGroup{})}, []string{
			"10 OFPGMFC_GROUP_EXISTS",
		}},
		{"no group to modify", map[int]Mod{10: {Kind: GroupModify, Group: 99}}, []string{"10 OFPGMFC_UNKNOWN_GROUP"}},
		{"too long", map[int]Mod{10: tooLong}, []string{"10 longer than an OpenFlow message can be"}},
	} {
		t.Run(c1.name, func(t *testing.T) {
			mods := make([]Mod, 1000)
			for i := range mods {
				mods[i] = flow(100+i, ir.Resubmit{Table: 5})
			}
			for i, m := range c1.bad {
				mods[i] = m
			}
			errs, err := c.Commit(t.Context(), mods)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, e := range errs {
				got = append(got, fmt.Sprintf("%d %v", e.Index, e.Err))
			}
			if diff := cmp.Diff(c1.want, got); diff != "" {
				t.Errorf("refused mods (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(before, b.dump(t)); diff != "" {
				t.Errorf("flows changed:\n%s", diff)
			}
		})
	}

	// Without what was refused, the rest goes in.
	good := []Mod{flow(8), lacksEtherType, flow(9)}
	errs, err := c.Commit(t.Context(), good)
	if err != nil || len(errs) != 1 {
		t.Fatal(errs, err)
	}
	commit(t, c, slices.Delete(good, errs[0].Index, errs[0].Index+1))
	if got := len(b.dump(t)); got != 3 {
		t.Errorf("%d flows, want 3", got)
	}
}

// Each kind of Mod, by what ovs-ofctl prints after it.
func TestMods(t *testing.T) {
	b, c := prepare(t)
	group := func(kind ModKind, id uint32, port uint32) Mod {
		m := AddGroup(id, &ir.SelectGroup{Method: "dp_hash", Buckets: []ir.Bucket{{Weight: 1, Actions: []ir.Action{ir.Output{Port: port}}}}})
		m.Kind = kind
		return m
	}
	kind := func(k ModKind, m Mod) Mod { m.Kind = k; return m }
	cookie := func(n uint64, m Mod) Mod { m.Cookie = n; return m }

	for _, step := range []struct {
		name   string
		mods   []Mod
		flows  []string
		groups []string // those with numbers from 10
	}{
		{
			"add",
			[]Mod{flow(1, ir.Output{Port: 1}), flow(2, ir.Output{Port: 2})},
			[]string{
				"cookie=0x1, table=1, priority=10,metadata=0x1 actions=output:1",
				"cookie=0x2, table=1, priority=10,metadata=0x2 actions=output:2",
			},
			nil,
		},
		{
			"add replaces",
			[]Mod{cookie(7, flow(1, ir.Output{Port: 3}))},
			[]string{
				"cookie=0x2, table=1, priority=10,metadata=0x2 actions=output:2",
				"cookie=0x7, table=1, priority=10,metadata=0x1 actions=output:3",
			},
			nil,
		},
		{
			"modify keeps the cookie",
			[]Mod{kind(FlowModifyStrict, cookie(8, flow(1)))},
			[]string{
				"cookie=0x2, table=1, priority=10,metadata=0x2 actions=output:2",
				"cookie=0x7, table=1, priority=10,metadata=0x1 actions=drop",
			},
			nil,
		},
		{
			"delete strict",
			[]Mod{kind(FlowDeleteStrict, flow(2)), kind(FlowDeleteStrict, flow(5))},
			[]string{"cookie=0x7, table=1, priority=10,metadata=0x1 actions=drop"},
			nil,
		},
		{
			"a group and its flow at once",
			[]Mod{group(GroupAdd, 10, 1), flow(3, ir.Group{ID: 10})},
			[]string{
				"cookie=0x3, table=1, priority=10,metadata=0x3 actions=group:10",
				"cookie=0x7, table=1, priority=10,metadata=0x1 actions=drop",
			},
			[]string{"group_id=10,type=select,selection_method=dp_hash,bucket=bucket_id:0,actions=output:1"},
		},
		{
			"modify a group",
			[]Mod{group(GroupModify, 10, 2)},
			[]string{
				"cookie=0x3, table=1, priority=10,metadata=0x3 actions=group:10",
				"cookie=0x7, table=1, priority=10,metadata=0x1 actions=drop",
			},
			[]string{"group_id=10,type=select,selection_method=dp_hash,bucket=bucket_id:0,actions=output:2"},
		},
		{
			"delete a group",
			[]Mod{group(GroupDelete, 10, 2), {Kind: GroupDelete, Group: 11}},
			[]string{"cookie=0x7, table=1, priority=10,metadata=0x1 actions=drop"},
			nil,
		},
		{"delete all", []Mod{{Kind: FlowDelete, Table: AllTables}, {Kind: GroupDelete, Group: AllGroups}}, nil, nil},
		{"nothing", nil, nil, nil},
	} {
		commit(t, c, step.mods)
		if diff := cmp.Diff(step.flows, b.dump(t)); diff != "" {
			t.Errorf("%s: flows (-want +got):\n%s", step.name, diff)
		}
		groups := slices.DeleteFunc(lines(b.ofctl(t, "--no-names", "dump-groups", "br0")), func(s string) bool {
			return !strings.HasPrefix(s, "group_id=1") || strings.HasPrefix(s, "group_id=1,")
		})
		if diff := cmp.Diff(step.groups, groups, emptyIsNil); diff != "" {
			t.Errorf("%s: groups (-want +got):\n%s", step.name, diff)
		}
	}
}

var emptyIsNil = cmp.Transformer("emptyIsNil", func(s []string) string { return strings.Join(s, "\n") })

func TestTLVTable(t *testing.T) {
	_, c := prepare(t)
	want := append(slices.Clone(testTLVs), TLV{0x103, 9, 8, 7})
	if err := c.AddTLVs(t.Context(), want[3]); err != nil {
		t.Fatal(err)
	}
	table, err := c.TLVTable(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(table.TLVs, func(a, b TLV) int { return int(a.Index) - int(b.Index) })
	slices.SortFunc(want, func(a, b TLV) int { return int(a.Index) - int(b.Index) })
	if diff := cmp.Diff(want, table.TLVs); diff != "" {
		t.Errorf("TLV table (-want +got):\n%s", diff)
	}
	if table.MaxFields != 64 || table.MaxSpace == 0 {
		t.Errorf("TLV table has room for %d fields, %d bytes", table.MaxFields, table.MaxSpace)
	}
	var refused *Error
	if err := c.AddTLVs(t.Context(), TLV{0x103, 10, 4, 7}); !errors.As(err, &refused) || refused.Name() != "NXTTMFC_ALREADY_MAPPED" {
		t.Errorf("second mapping of an index: %v", err)
	}
	if err := c.DeleteTLVs(t.Context(), TLV{0x103, 9, 8, 7}); err != nil {
		t.Error(err)
	}
}

func TestSwitchRequests(t *testing.T) {
	b, c := prepare(t)
	ctx := t.Context()
	var refused *Error
	for name, err := range map[string]error{
		"barrier":          c.Barrier(ctx),
		"echo":             c.Echo(ctx),
		"packet-in format": c.SetPacketInFormat(ctx, PacketInNicira2),
		"miss_send_len":    c.SetMissSendLen(ctx, 0xffff),
		"modify meter":     c.ModifyMeter(ctx, Meter{ID: 1, Burst: true, Stats: true, Bands: []Band{{Rate: 7, Burst: 8}}}),
		"flush zone":       c.FlushZone(ctx, 3),
	} {
		// The dummy datapath has a connection tracker but cannot flush one zone of it in every version.
		if name == "flush zone" && errors.As(err, &refused) && refused.Name() == "NXR_NOT_SUPPORTED" {
			t.Errorf("flush zone: %v", err)
		} else if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n, err := c.MissSendLen(ctx); err != nil || n != 0xffff {
		t.Errorf("MissSendLen() = %d, %v, want 65535", n, err)
	}
	if f, err := c.Features(ctx); err != nil || f.DatapathID == 0 || f.Tables != 254 {
		t.Errorf("Features() = %+v, %v", f, err)
	}
	if got := b.ofctl(t, "dump-meters", "br0"); !strings.Contains(got, "meter=1 kbps burst stats bands=\ntype=drop rate=7 burst_size=8") {
		t.Errorf("meters: %s", got)
	}
	for name, c1 := range map[string]struct {
		err  error
		want string
	}{
		"meter exists":    {c.AddMeter(ctx, Meter{ID: 1}), "OFPMMFC_METER_EXISTS"},
		"no such meter":   {c.ModifyMeter(ctx, Meter{ID: 9}), "OFPMMFC_UNKNOWN_METER"},
		"bad output port": {c.PacketOut(ctx, 1, []ir.Action{ir.Output{Port: 0xffff}}, make([]byte, 64)), "OFPBAC_BAD_OUT_PORT"},
	} {
		if !errors.As(c1.err, &refused) || refused.Name() != c1.want {
			t.Errorf("%s: %v, want %s", name, c1.err, c1.want)
		}
	}

	// A packet that we inject is seen by a flow.
	commit(t, c, []Mod{flow(1, ir.Output{Port: 1}), AddFlow(&ir.Rule{Priority: 1, Match: ir.Match{}.Eq(ir.InPort, 5), Actions: []ir.Action{ir.SetWhole(ir.Metadata, 1), ir.Resubmit{Table: 1}}})})
	if err := c.PacketOut(ctx, 5, []ir.Action{ir.Output{Port: 0xfff9}}, make([]byte, 64)); err != nil {
		t.Fatal(err)
	}
	seen := 0
	if err := c.DumpFlows(ctx, func(f *FlowStats) error {
		if f.PacketCount == 1 && f.ByteCount == 64 {
			seen++
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if seen != 2 {
		t.Errorf("%d flows have counted a packet, want 2:\n%s", seen, b.ofctl(t, "dump-flows", "br0"))
	}
}

// A packet that a controller action punts arrives with what the flow knew about it.
func TestPacketIn(t *testing.T) {
	_, c := prepare(t)
	ctx := t.Context()
	if err := errors.Join(c.SetPacketInFormat(ctx, PacketInNicira2), c.SetMissSendLen(ctx, 0xffff)); err != nil {
		t.Fatal(err)
	}
	packet := "\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x01\x88\xb5" + strings.Repeat("x", 50)
	for _, pause := range []bool{false, true} {
		commit(t, c, []Mod{AddFlow(&ir.Rule{Table: 0, Priority: 1, Cookie: 99, Actions: []ir.Action{
			ir.SetWhole(ir.Reg3, 7), ir.SetWhole(ir.Metadata, 8),
			ir.Controller{MaxLen: 0xffff, UserData: []byte("punt"), Pause: pause},
		}})})
		if err := c.PacketOut(ctx, 5, []ir.Action{ir.Output{Port: 0xfff9}}, []byte(packet)); err != nil {
			t.Fatal(err)
		}
		var p PacketIn
		select {
		case p = <-c.PacketIns():
		case <-c.Done():
			t.Fatal(c.Err())
		case <-time.After(10 * time.Second):
			t.Fatal("no packet-in within 10 s")
		}
		if string(p.Packet) != packet || string(p.UserData) != "punt" || p.Reason != 1 || pause != (len(p.Continuation) > 0) {
			t.Errorf("pause %t: packet-in is %+v", pause, p)
		}
		// A paused packet's cookie is that of the packet-out, which has none.
		if !pause && p.Cookie != 99 {
			t.Errorf("packet-in has cookie %d, want 99", p.Cookie)
		}
		for f, want := range map[ir.Field]uint64{ir.InPort: 5, ir.Reg3: 7, ir.Metadata: 8} {
			if got, _ := p.Metadata.Term(f); got.Value.Lo != want {
				t.Errorf("pause %t: packet-in has %v = %v, want %d", pause, f, got.Value, want)
			}
		}
	}
	if full, malformed := c.DroppedPacketIns(); full != 0 || malformed != 0 {
		t.Errorf("%d packet-ins dropped, %d not understood", full, malformed)
	}
}

// Flows with an instruction that we never use are recognised.
func TestForeignFlows(t *testing.T) {
	b, c := prepare(t)
	b.ofctl(t, "add-flow", "br0", "cookie=1,table=3,idle_timeout=100,hard_timeout=200,importance=3,send_flow_rem,actions=goto_table:5")
	b.ofctl(t, "add-flow", "br0", "cookie=2,table=3,priority=7,mpls,mpls_label=3,actions=output:1,write_metadata:1")
	b.ofctl(t, "add-flow", "br0", "cookie=3,table=3,priority=8,actions=multipath(eth_src,1,hrw,2,0,reg0[])")
	n := 0
	if err := c.DumpFlows(t.Context(), func(f *FlowStats) error {
		n++
		_, matchErr := DecodeMatch(f.Match)
		_, actionsErr := DecodeActions(f.Actions)
		switch f.Cookie {
		case 1:
			if !f.Other || f.IdleTimeout != 100 || f.HardTimeout != 200 || f.Importance != 3 || f.Flags != 1 || matchErr != nil {
				t.Errorf("%+v, %v", f, matchErr)
			}
		case 2:
			if !f.Other || matchErr == nil {
				t.Errorf("%+v, %v", f, matchErr)
			}
		case 3:
			if f.Other || actionsErr == nil {
				t.Errorf("%+v, %v", f, actionsErr)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if n != 3 {
		t.Errorf("%d flows, want 3", n)
	}
	stop := errors.New("stop")
	if err := c.DumpFlows(t.Context(), func(*FlowStats) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("DumpFlows() = %v, want the callback's error", err)
	}
	if err := c.Echo(t.Context()); err != nil {
		t.Errorf("after a dump that was stopped: %v", err)
	}
}

// Everything at once on one connection: answers reach those who asked.
func TestConcurrentCalls(t *testing.T) {
	b, c := prepare(t)
	const workers, each = 6, 3000
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	for w := range workers {
		wg.Go(func() {
			mods := make([]Mod, each)
			for i := range mods {
				mods[i] = flow(w*each+i, ir.Output{Port: 1})
			}
			if errs, err := c.Commit(t.Context(), mods); err != nil || errs != nil {
				t.Errorf("worker %d: %v, %v", w, errs, err)
			}
			bad := []Mod{flow(1), AddFlow(&ir.Rule{Match: ir.Match{}.Eq(ir.IPSrc, uint64(w))})}
			if errs, err := c.Commit(t.Context(), bad); err != nil || len(errs) != 1 || errs[0].Index != 1 {
				t.Errorf("worker %d: %v, %v", w, errs, err)
			}
		})
	}
	var askers sync.WaitGroup
	for range 2 {
		askers.Go(func() {
			for ctx.Err() == nil {
				if err := errors.Join(c.Echo(t.Context()), c.Barrier(t.Context())); err != nil {
					t.Error(err)
					return
				}
				if err := c.DumpFlows(t.Context(), func(*FlowStats) error { return nil }); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	cancel()
	askers.Wait()
	if got := len(b.dump(t)); got != workers*each {
		t.Errorf("%d flows, want %d", got, workers*each)
	}
}
