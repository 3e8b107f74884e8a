package compile

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// An ovnController is an ovn-controller(8) of the test's own, with the databases and the switch it needs but without
// ovn-northd(8): the test writes the logical flows. It is the oracle for parser and encoder.
type ovnController struct {
	*daemons
	sync int // nb_cfg of the last barrier
}

// oracleRows are the Southbound rows between which the tests' logical flows live: datapaths sw (a switch), rt and
// gw (routers, gw with a zone for SNAT), the ports and the multicast group of sw, and DHCP options.
var oracleRows = []map[string]any{
	insertRow("Datapath_Binding", "sw", map[string]any{"tunnel_key": 1, "external_ids": mapOf("logical-switch", oracleUUID)}),
	insertRow("Datapath_Binding", "rt", map[string]any{"tunnel_key": 2, "external_ids": mapOf("logical-router", oracleUUID)}),
	insertRow("Datapath_Binding", "gw", map[string]any{
		"tunnel_key": 3, "external_ids": mapOf("logical-router", oracleUUID, "snat-ct-zone", "77"),
	}),
	portRow("lp1", "sw", 10, nil),
	portRow("lp2", "sw", 20, nil),
	portRow("sw-rt", "sw", 3, mapOf("peer", "rt-sw")),
	portRow("rt-sw", "rt", 1, mapOf("peer", "sw-rt")),
	portRow("sw-gw", "sw", 4, mapOf("peer", "gw-sw")),
	portRow("gw-sw", "gw", 1, mapOf("peer", "sw-gw")),
	insertRow("Multicast_Group", "", map[string]any{
		"datapath": named("sw"), "name": "_MC_flood", "tunnel_key": 32768, "ports": named("lp1"),
	}),
	insertRow("Meter_Band", "band", map[string]any{"action": "drop", "rate": 10, "burst_size": 5}),
	insertRow("Meter", "", map[string]any{"name": oracleMeter, "unit": "pktps", "bands": named("band")}),
}

// oracleMeter is the name of the one Meter.
const oracleMeter = "acl-meter"

const oracleUUID = "11111111-1111-1111-1111-111111111111"

// oracleKeys are the keys that the ports and groups above have.
var oracleKeys = map[string]map[string]uint32{
	"sw": {"lp1": 10, "lp2": 20, "sw-rt": 3, "sw-gw": 4, "_MC_flood": 32768},
	"rt": {"rt-sw": 1},
	"gw": {"gw-sw": 1},
}

func named(id string) any { return []any{"named-uuid", uuidName(id)} }

// uuidName turns a name into one that OVSDB takes for an identifier.
func uuidName(id string) string { return "u_" + strings.ReplaceAll(id, "-", "_") }

func mapOf(pairs ...string) any {
	m := [][2]string{}
	for i := 0; i < len(pairs); i += 2 {
		m = append(m, [2]string{pairs[i], pairs[i+1]})
	}
	return []any{"map", m}
}

func insertRow(table, id string, row map[string]any) map[string]any {
	op := map[string]any{"op": "insert", "table": table, "row": row}
	if id != "" {
		op["uuid-name"] = uuidName(id)
	}
	return op
}

func portRow(name, dp string, key int, options any) map[string]any {
	row := map[string]any{"logical_port": name, "datapath": named(dp), "tunnel_key": key}
	if options != nil {
		row["type"], row["options"] = "patch", options
	}
	return insertRow("Port_Binding", name, row)
}

// daemons are programs of OVS and OVN that run in a directory of their own until the test ends.
type daemons struct {
	t   *testing.T
	dir string
}

// detach are the options that put a daemon in the background.
var detach = []string{"--detach", "--no-chdir", "--pidfile", "--log-file", "-vconsole:off"}

func newDaemons(t *testing.T) *daemons {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "oc") //nolint:usetesting // t.TempDir is too long for a socket's path of 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	d := &daemons{t: t, dir: dir}
	t.Cleanup(func() {
		files, err := filepath.Glob(filepath.Join(dir, "*.pid"))
		if err != nil {
			t.Error(err)
		}
		for _, file := range files {
			d.kill(file)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return d
}

// kill ends the daemon whose process number is in file. Nothing of what it would tidy up outlives the test.
func (d *daemons) kill(file string) {
	if d.t.Failed() {
		out, _ := d.try("tail", "-n", "30", strings.TrimSuffix(file, ".pid")+".log")
		d.t.Logf("%s.log:\n%s", strings.TrimSuffix(filepath.Base(file), ".pid"), out)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		d.t.Error(err)
		return
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err == nil {
		err = syscall.Kill(pid, syscall.SIGKILL)
	}
	if err != nil {
		d.t.Errorf("%s: %v", file, err)
	}
}

func (d *daemons) socket() string { return "unix:" + filepath.Join(d.dir, "db.sock") }

// startOVNController starts the daemons; they end with the test.
func startOVNController(t *testing.T) *ovnController {
	t.Helper()
	c := &ovnController{daemons: newDaemons(t)}
	db := c.socket()
	c.run("ovsdb-tool", "create", "sb.db", "/usr/share/ovn/ovn-sb.ovsschema")
	c.run("ovsdb-tool", "create", "conf.db", "/usr/share/openvswitch/vswitch.ovsschema")
	c.run("ovsdb-server", append(detach, "--remote=p"+db, "conf.db", "sb.db")...)
	c.run("ovs-vsctl", "--db="+db, "--no-wait", "init")
	c.run("ovs-vswitchd", append(detach, "--enable-dummy=override", "--disable-system", db)...)
	c.run("ovs-vsctl", "--db="+db, "--timeout=30",
		"add-br", "br-int", "--", "set", "bridge", "br-int", "datapath_type=dummy", "fail_mode=secure", "--",
		"add-port", "br-int", "lp1", "--", "set", "interface", "lp1", "type=dummy", "external_ids:iface-id=lp1", "--",
		"set", "open", ".", "external_ids:system-id=hv", "external_ids:ovn-remote="+db,
		"external_ids:ovn-encap-type=geneve", "external_ids:ovn-encap-ip=127.0.0.1")
	c.transact(insertRow("SB_Global", "", map[string]any{}))
	c.run("ovn-controller", append(detach, db)...)
	c.run("ovn-appctl", "-t", "ovn-controller", "vlog/disable-rate-limit")
	return c
}

// try runs a program with the directories of OVS and OVN set to d's.
func (d *daemons) try(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = d.dir
	cmd.Env = append(os.Environ(), "PATH=/usr/sbin:/usr/bin:/sbin:/bin:"+os.Getenv("PATH"))
	for _, v := range []string{"OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVN_RUNDIR", "OVN_LOGDIR", "OVN_DBDIR"} {
		cmd.Env = append(cmd.Env, v+"="+d.dir)
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (d *daemons) run(name string, args ...string) string {
	d.t.Helper()
	out, err := d.try(name, args...)
	if err != nil {
		d.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

// transact runs operations on the Southbound database as one transaction.
func (d *daemons) transact(ops ...map[string]any) {
	d.t.Helper()
	params := []any{"OVN_Southbound"}
	for _, op := range ops {
		params = append(params, op)
	}
	text, err := json.Marshal(params)
	if err != nil {
		d.t.Fatal(err)
	}
	out := d.run("ovsdb-client", "transact", d.socket(), string(text))
	if strings.Contains(out, `"error"`) {
		d.t.Fatalf("transaction %s: %s", text, out)
	}
}

// wait returns when ovn-controller has installed the rules of all logical flows.
func (c *ovnController) wait() {
	c.t.Helper()
	c.sync++
	c.transact(map[string]any{
		"op": "update", "table": "SB_Global", "where": []any{}, "row": map[string]any{"nb_cfg": c.sync},
	})
	c.run("ovn-sbctl", "--db="+c.socket(), "--timeout=10",
		"wait-until", "chassis_private", "hv", "nb_cfg="+strconv.Itoa(c.sync))
}

// An oracleFlow is a logical flow of a test. Flows are told apart by their priorities.
type oracleFlow struct {
	dp             string // sw, rt or gw
	egress         bool
	table          uint8
	match, actions string
	meter          string // controller_meter; "": none
}

// add writes the logical flows, and everything to which they refer, flow i with priority first+i.
func (c *ovnController) add(first int, flows []oracleFlow) {
	c.t.Helper()
	ops := append([]map[string]any{}, oracleRows...)
	for i, f := range flows {
		row := map[string]any{
			"logical_datapath": named(f.dp), "table_id": f.table, "priority": first + i, "pipeline": "ingress",
			"match": f.match, "actions": f.actions,
		}
		if f.egress {
			row["pipeline"] = "egress"
		}
		if f.meter != "" {
			row["controller_meter"] = f.meter
		}
		ops = append(ops, insertRow("Logical_Flow", "", row))
	}
	for name, def := range testDHCPOptions {
		ops = append(ops, insertRow("DHCP_Options", "", map[string]any{"name": name, "code": def.Code, "type": def.Type}))
	}
	for name, def := range testDHCPv6Options {
		ops = append(ops, insertRow("DHCPv6_Options", "", map[string]any{"name": name, "code": def.Code, "type": def.Type}))
	}
	c.transact(ops...)
	c.wait()
}

// addCollectorSet gives the switch Flow_Sample_Collector_Set 1 and returns when a rule samples. ovn-controller 23.03
// notices a set only if it is the only change, so this comes last.
func (c *ovnController) addCollectorSet() {
	c.t.Helper()
	c.run("ovs-vsctl", "--db="+c.socket(), "--timeout=30",
		"--id=@br", "get", "bridge", "br-int", "--", "create", "flow_sample_collector_set", "id=1", "bridge=@br")
	for range 200 {
		if strings.Contains(c.run("ovs-ofctl", "-O", "OpenFlow15", "dump-flows", "br-int"), "sample(") {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	c.t.Fatal("ovn-controller does not notice the Flow_Sample_Collector_Set")
}

// refusals returns ovn-controller's message for each text of actions that it does not understand.
func (c *ovnController) refusals(texts ...string) map[string]string {
	c.t.Helper()
	log, err := os.ReadFile(filepath.Join(c.dir, "ovn-controller.log"))
	if err != nil {
		c.t.Fatal(err)
	}
	out := map[string]string{}
	for _, text := range texts {
		if _, rest, ok := strings.Cut(string(log), fmt.Sprintf("error parsing actions \"%s\": ", text)); ok {
			out[text], _, _ = strings.Cut(rest, "\n")
		}
	}
	return out
}

// oracleRules are the rules of one logical flow, in ovs-ofctl(8)'s notation.
type oracleRules struct {
	matches []string // without metadata
	actions string   // of all of them
	cookie  uint32
}

// rules returns the rules with n priorities from first, by priority.
func (c *ovnController) rules(first, n int) map[int]oracleRules {
	c.t.Helper()
	out := map[int]oracleRules{}
	for line := range strings.Lines(c.run("ovs-ofctl", "-O", "OpenFlow15", "--no-stats", "--no-names", "dump-flows", "br-int")) {
		head, actions, ok := strings.Cut(strings.TrimSpace(line), " actions=")
		if !ok {
			continue
		}
		var cookie uint32
		var match []string
		priority := 32768 // which is not printed
		for word := range strings.FieldsFuncSeq(head, func(r rune) bool { return r == ' ' || r == ',' }) {
			var err error
			switch key, value, _ := strings.Cut(word, "="); key {
			case "cookie":
				_, err = fmt.Sscanf(value, "0x%x", &cookie)
			case "priority":
				priority, err = strconv.Atoi(value)
			case "table", "metadata":
			default:
				match = append(match, word)
			}
			if err != nil {
				c.t.Fatalf("flow %q: %v", line, err)
			}
		}
		if priority < first || priority >= first+n {
			continue
		}
		r := out[priority]
		if r.actions != "" && r.actions != actions {
			c.t.Errorf("priority %d: actions %s and %s", priority, r.actions, actions)
		}
		r.matches = append(r.matches, strings.Join(match, ","))
		r.actions, r.cookie = actions, cookie
		out[priority] = r
	}
	return out
}

// groups returns the groups without their identifiers, by identifier.
func (c *ovnController) groups() map[string]string {
	c.t.Helper()
	out := map[string]string{}
	for line := range strings.Lines(c.run("ovs-ofctl", "-O", "OpenFlow15", "dump-groups", "br-int")) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "group_id="); ok {
			id, def, _ := strings.Cut(rest, ",")
			out[id] = def
		}
	}
	return out
}
