package topology

import (
	"cmp"
	"context"
	"encoding/csv"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/offloadd/offloadd/integration/parity/content"
	"github.com/offloadd/offloadd/pkg/chassis"
	"github.com/offloadd/offloadd/pkg/daemon"
	"github.com/offloadd/offloadd/pkg/ovsdb"
	"github.com/offloadd/offloadd/pkg/ovsdb/vswitchdb"
	"github.com/offloadd/offloadd/pkg/sb"
)

// The chassis as the contents know it.
const (
	chassisName = "n1"
	LocalIP     = "172.31.0.1" // the address at which its tunnels end
)

// A table is the rows of one table, by UUID.
type table map[string]any

// databases are the contents of both databases, by table.
type databases struct{ south, local map[string]table }

// settled lets ovn-northd and a chassis work on a content until neither has anything to do.
func settled(ctx context.Context, c content.Content) (databases, error) {
	central, err := startCentral(ctx)
	if err != nil {
		return databases{}, err
	}
	defer central.close() //nolint:errcheck // the directory is below /tmp
	if err := prepare(ctx, central, c); err != nil {
		return databases{}, err
	}
	s := settler{central: central, store: sb.NewStore(), sw: chassis.NewSwitch(), state: chassis.New(chassis.Options{Hostname: chassisName})}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if s.south, err = newReplica(ctx, central, "OVN_Southbound", daemon.SouthboundTables()); err != nil {
		return databases{}, err
	}
	if s.local, err = newReplica(ctx, central, "Open_vSwitch", daemon.SwitchTables()); err != nil {
		return databases{}, err
	}
	err = s.run(ctx)
	return databases{s.south.rows, s.local.rows}, err
}

// prepare fills the databases. ovn-northd starts when there is everything in the Northbound that it needs for giving numbers.
func prepare(ctx context.Context, central *central, c content.Content) error {
	var vs strings.Builder
	fmt.Fprintf(&vs, "set open . external_ids:system-id=%s external_ids:ovn-remote=%s external_ids:ovn-encap-type=geneve external_ids:ovn-encap-ip=%s\n",
		chassisName, central.remote(), LocalIP)
	// What a kernel's datapath can do.
	vs.WriteString("add-br br-int\nset bridge br-int datapath_type=system fail_mode=secure\n")
	vs.WriteString("--id=@dp create datapath capabilities:ct_zero_snat=true capabilities:max_hash_alg=1\nset open . datapaths:system=@dp\n")
	for i, p := range c.Local {
		fmt.Fprintf(&vs, "add-port br-int %s\nset interface %s external_ids:iface-id=%s\n", device(i), device(i), strconv.Quote(strconv.Quote(p)))
	}
	for _, step := range []struct{ program, script string }{
		{"ovs-vsctl", "init"}, {"ovs-vsctl", vs.String()}, {"ovs-vsctl", c.VS}, {"ovn-nbctl", c.NB},
	} {
		var options []string
		if step.program == "ovs-vsctl" {
			options = []string{"--no-wait"}
		}
		if _, err := central.ctl(ctx, step.program, step.script, options...); err != nil {
			return err
		}
	}
	if err := patch(ctx, central); err != nil {
		return err
	}
	if err := number(ctx, central); err != nil {
		return err
	}
	if err := central.startNorthd(); err != nil {
		return err
	}
	if err := northd(ctx, central); err != nil {
		return err
	}
	if _, err := central.ctl(ctx, "ovn-sbctl", c.SB); err != nil {
		return err
	}
	return northd(ctx, central)
}

// device names the interface of the i-th local port.
func device(i int) string { return fmt.Sprintf("v%d", i) }

// northd waits until ovn-northd has caught up.
func northd(ctx context.Context, central *central) error {
	_, err := central.ctl(ctx, "ovn-nbctl", "sync", "--wait=sb")
	return err
}

// list returns columns of all rows of a Northbound table, sorted by the second one.
func list(ctx context.Context, central *central, table, columns string) ([][]string, error) {
	out, err := central.ctl(ctx, "ovn-nbctl", "list "+table, "--format=csv", "--no-headings", "--data=bare", "--columns="+columns)
	if err != nil {
		return nil, err
	}
	rows, err := csv.NewReader(strings.NewReader(out)).ReadAll()
	slices.SortFunc(rows, func(a, b []string) int { return cmp.Compare(a[1], b[1]) })
	return rows, err
}

// number gives datapaths and ports their tunnel keys in the order of their names: ovn-northd does it in that of a hash table.
func number(ctx context.Context, central *central) error {
	var script strings.Builder
	script.WriteString("set nb_global . options:svc_monitor_mac=0a:00:00:00:ff:01 options:mac_prefix=0a:00:01\n") // otherwise drawn at random
	datapath, port := 0x100, 0x200
	for _, t := range []struct {
		table, column string
		next          *int
	}{
		{"logical_switch", "other_config", &datapath},
		{"logical_router", "options", &datapath},
		{"logical_switch_port", "options", &port},
		{"logical_router_port", "options", &port},
	} {
		rows, err := list(ctx, central, t.table, "_uuid,name,"+t.column)
		if err != nil {
			return err
		}
		for _, r := range rows {
			if strings.Contains(r[2], "requested-tnl-key") {
				continue
			}
			fmt.Fprintf(&script, "set %s %s %s:requested-tnl-key=%d\n", t.table, r[0], t.column, *t.next)
			*t.next++
		}
	}
	_, err := central.ctl(ctx, "ovn-nbctl", script.String())
	return err
}

// patch makes the patch ports of localnet and l2gateway ports.
func patch(ctx context.Context, central *central) error {
	rows, err := list(ctx, central, "logical_switch_port", "_uuid,name,type")
	if err != nil {
		return err
	}
	var script strings.Builder
	for i, r := range rows {
		key := map[string]string{"localnet": "ovn-localnet-port", "l2gateway": "ovn-l2gateway-port"}[r[2]]
		if key == "" {
			continue
		}
		fmt.Fprintf(&script, "add-port br-int patch%d\nset interface patch%d type=patch options:peer=peer%d\nset port patch%d external_ids:%s=%s\n",
			i, i, i, i, key, strconv.Quote(strconv.Quote(r[1])))
	}
	_, err = central.ctl(ctx, "ovs-vsctl", script.String(), "--no-wait")
	return err
}

// A replica is a copy of a database.
type replica struct {
	client   *ovsdb.Client
	rows     map[string]table
	synced   bool
	sent     uint64 // transactions
	answered uint64 // transactions whose effects have been seen
}

func newReplica(ctx context.Context, central *central, name string, tables []ovsdb.Table) (*replica, error) {
	client, err := ovsdb.New(ovsdb.Config{Database: name, Remotes: []string{central.remote()}, Tables: tables})
	if err != nil {
		return nil, err
	}
	go client.Run(ctx) //nolint:errcheck // ends with ctx, without error
	return &replica{client: client, rows: map[string]table{}}, nil
}

func (r *replica) take(u ovsdb.Update) {
	r.synced, r.answered = u.Synced, u.Transactions
	for _, c := range u.Changes {
		if r.rows[c.Table] == nil {
			r.rows[c.Table] = table{}
		}
		if c.New == nil {
			delete(r.rows[c.Table], c.UUID)
		} else {
			r.rows[c.Table][c.UUID] = c.New
		}
	}
}

func (r *replica) idle() bool { return r.synced && r.answered >= r.sent }

func (r *replica) transact(ctx context.Context, ops []ovsdb.Operation) error {
	if len(ops) == 0 {
		return nil
	}
	_, err := r.client.Transact(ctx, ops...)
	r.sent++
	return err
}

// A settler is a chassis without a switch: it writes both databases, and gives OpenFlow ports numbers as ovs-vswitchd would.
type settler struct {
	central      *central
	south, local *replica
	store        *sb.Store
	sw           *chassis.Switch
	state        *chassis.State
	turn         uint64
}

func (s *settler) run(ctx context.Context) error {
	for calm := 0; calm < 2; {
		if err := s.wait(ctx, func() bool { return s.south.idle() && s.local.idle() }); err != nil {
			return err
		}
		s.turn++
		plan := s.state.Step(chassis.Inputs{
			Turn: s.turn, AckedTurn: s.turn - 1, Now: time.Now().UnixMilli(), Switch: s.sw, SB: s.store,
			SBSynced: true, CondInSync: true, CondTurn: s.turn - 1, SBIdle: true, OVSIdle: true,
		})
		local := append(daemon.Operations(plan.OVSOps), s.ports()...)
		south := daemon.Operations(plan.SBOps)
		if err := s.local.transact(ctx, local); err != nil {
			return err
		}
		if err := s.south.transact(ctx, south); err != nil {
			return err
		}
		if calm++; len(local)+len(south) > 0 {
			calm = 0
			continue
		}
		if err := northd(ctx, s.central); err != nil {
			return err
		}
		cfg, err := s.central.ctl(ctx, "ovn-nbctl", "get nb_global . sb_cfg")
		if err != nil {
			return err
		}
		want, err := strconv.ParseInt(strings.TrimSpace(cfg), 10, 64)
		if err != nil {
			return err
		}
		if err := s.wait(ctx, func() bool { return s.store.Global != nil && s.store.Global.NBCfg >= want }); err != nil {
			return err
		}
	}
	return nil
}

// wait takes in updates until cond holds.
func (s *settler) wait(ctx context.Context, cond func() bool) error {
	for !cond() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for the databases: %w", ctx.Err())
		case u := <-s.south.client.Updates():
			s.south.take(u)
			var updates []sb.Update
			for _, c := range u.Changes {
				updates = append(updates, sb.Update{Table: c.Table, UUID: c.UUID, New: c.New})
			}
			if d := s.store.Apply(updates); len(d.Refused) > 0 {
				return fmt.Errorf("southbound row refused: %w", d.Refused[0].Err)
			}
		case u := <-s.local.client.Updates():
			s.local.take(u)
			var changes []chassis.Change
			for _, c := range u.Changes {
				changes = append(changes, chassis.Change{Table: c.Table, UUID: c.UUID, Old: c.Old, New: c.New})
			}
			s.sw.Apply(changes)
		}
	}
	return nil
}

// The OpenFlow ports: those of local ports, tunnels and patch ports, each in the order of their names.
const (
	firstVIF    = 10
	firstTunnel = 1000
	firstPatch  = 2000
)

// ports gives the interfaces that have none OpenFlow ports.
func (s *settler) ports() []ovsdb.Operation {
	b := s.sw.Bridge("br-int")
	if b == nil {
		return nil
	}
	var ops []ovsdb.Operation
	next := map[string]int{"": firstVIF, "patch": firstPatch, "geneve": firstTunnel, "vxlan": firstTunnel, "stt": firstTunnel}
	for _, p := range s.sw.Ports(b) {
		for _, i := range s.sw.Interfaces(p) {
			n := next[i.Type]
			next[i.Type]++
			if i.Type == "geneve" || i.Type == "vxlan" {
				next["geneve"], next["vxlan"] = n+1, n+1
			}
			var v int
			if _, err := fmt.Sscanf(i.Name, "v%d", &v); err == nil {
				n = firstVIF + v
			}
			if i.Ofport == nil || *i.Ofport != n {
				ops = append(ops, ovsdb.UpdateRow(vswitchdb.InterfaceTable, i.UUID, map[string]any{"ofport": int64(n)}))
			}
		}
	}
	return ops
}
