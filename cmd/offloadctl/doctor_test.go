package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	libovsdb "github.com/ovn-org/libovsdb/ovsdb"
	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/internal/golden"
	"github.com/offloadd/offloadd/pkg/dpctl"
	"github.com/offloadd/offloadd/pkg/ovsdb/ovsdbtest"
	"github.com/offloadd/offloadd/pkg/tc"
)

// kernel returns findings of which all are there but those of the map.
func kernel(all []tc.Capability, words map[string]string) (fs []tc.Finding) {
	no := map[string]bool{}
	for i := range all {
		f := tc.Finding{Capability: &all[i], Answer: tc.Yes}
		if w, missing := words[f.Name]; missing {
			f.Answer, f.Words = tc.No, w
		} else if no[f.Needs] {
			f.Answer, f.Words = tc.No, "not without "+f.Needs
		}
		no[f.Name] = f.Answer == tc.No
		fs = append(fs, f)
	}
	return fs
}

// diagnoses are the cases of the golden file.
func diagnoses() map[string]diagnosis {
	good := vswitch{version: "3.1.0", bridge: "br-int", exists: true}
	ports := tc.Finding{Capability: &checkRepresentors, Answer: tc.Yes}
	all := func(parts ...[]tc.Finding) (fs []tc.Finding) {
		for _, p := range parts {
			fs = append(fs, p...)
		}
		return append(fs, ports)
	}
	denied := diagnosis{err: fmt.Errorf("tc probe: new network namespace: %w", unix.EPERM)}
	for i := range tc.Capabilities {
		denied.findings = append(denied.findings, tc.Finding{Capability: &tc.Capabilities[i], Words: denied.err.Error()})
	}
	denied.findings = all(denied.findings, good.findings(nil, false))
	dump := func(text string) []dpctl.Flow {
		flows, err := dpctl.Parse(text)
		if err != nil {
			panic(err)
		}
		return flows
	}
	flows := dump(`recirc_id(0),in_port(v1), packets:10, bytes:600, used:1s, offloaded:yes, dp:tc, actions:v2
recirc_id(0),in_port(v2), packets:7, bytes:420, used:1s, dp:tc, actions:v1
recirc_id(0),in_port(genev_sys_6081), packets:3, bytes:180, used:1s, dp:ovs, actions:v1`)
	return map[string]diagnosis{
		"all is well": {kernel: "6.8.0", ovs: "3.1.0", findings: all(kernel(tc.Capabilities, nil), good.findings(nil, false))},
		"stock Debian, and a NIC that drops only": {
			kernel: "6.1.0-56-amd64", ovs: "3.1.0", device: "enp3s0f0np0", driver: "somenic",
			findings: append(
				all(kernel(tc.Capabilities, map[string]string{tc.CapNoFrag: "the kernel has made of it: less", tc.CapResume: "EOPNOTSUPP operation not supported"}), good.findings(nil, false)),
				kernel(tc.DeviceCapabilities, map[string]string{tc.CapGoto: "EOPNOTSUPP operation not supported (only chain 0)", tc.CapRedirect: "EINVAL invalid argument (no)"})...),
		},
		"no flower, no Open vSwitch": {
			kernel: "6.18.0", findings: append(
				kernel(tc.Capabilities, map[string]string{tc.CapFlower: "ENOENT no such file or directory (TC classifier not found)"}),
				vswitch{}.findings(errors.New("dial unix /run/openvswitch/db.sock: connect: no such file or directory"), false)...),
		},
		"Open vSwitch as it should not be": {
			kernel: "6.8.0", ovs: "3.1.0",
			findings: all(kernel(tc.Capabilities, nil), vswitch{version: "3.1.0", bridge: "br-int", exists: true, userspace: true, hw: true}.findings(nil, false)),
		},
		"delegated, and Open vSwitch does not offload": {kernel: "6.8.0", ovs: "3.1.0", findings: all(kernel(tc.Capabilities, nil), good.findings(nil, true))},
		"delegated": {
			kernel: "6.8.0", ovs: "3.1.0", megaflows: dpctl.Sums(flows), findings: append(
				all(kernel(tc.Capabilities, nil), vswitch{version: "3.1.0", bridge: "br-int", exists: true, hw: true, policy: "skip_hw"}.findings(nil, true)),
				judgeMegaflows(flows)),
		},
		"delegated, without packets": {
			kernel: "6.8.0", ovs: "3.1.0", findings: append(
				all(kernel(tc.Capabilities, nil), vswitch{version: "3.1.0", bridge: "br-int", exists: true, hw: true}.findings(nil, true)),
				judgeMegaflows(nil)),
		},
		"not root": denied,
	}
}

// What people read, and programs, and the exit code.
func TestDoctorTells(t *testing.T) {
	cases := diagnoses()
	golden.Run(t, "testdata/doctor.txt", func(in string) string {
		name, format, _ := strings.Cut(in, ", as ")
		d, ok := cases[name]
		if !ok {
			t.Fatalf("no case %q", name)
		}
		var out, errs bytes.Buffer
		c := &cli{env: env{stdout: &out, stderr: &errs, getenv: func(string) string { return "" }}, format: "table"}
		if format != "" {
			c.format = format
		}
		err := c.tell(d)
		if err != nil {
			c.explainError(err)
		}
		for l := range strings.Lines(errs.String()) {
			out.WriteString("! " + l)
		}
		if code := exitCode(err); code != 0 {
			fmt.Fprintf(&out, "exit %d\n", code)
		}
		return strings.TrimSuffix(out.String(), "\n")
	})
}

// Without NET_TC_SKB_EXT Open vSwitch offloads nothing that is recirculated.
func TestDoctorRecirculation(t *testing.T) {
	for words, want := range map[string]tc.Answer{"": tc.Yes, "EOPNOTSUPP operation not supported": tc.No} {
		missing := map[string]string{}
		if words != "" {
			missing[tc.CapResume] = words
		}
		f := recirculation(&tc.Caps{Findings: kernel(tc.Capabilities, missing)})
		if f.Name != "ovs.recirculation" || f.Answer != want || f.Words != words {
			t.Errorf("with %q: %v %q", words, f.Answer, f.Words)
		}
	}
	if f := recirculation(&tc.Caps{}); f.Answer != tc.Unknown {
		t.Errorf("of a kernel that could not be probed: %v", f.Answer)
	}
}

// Programs read where the megaflows of each device are.
func TestDoctorTellsMegaflows(t *testing.T) {
	var out bytes.Buffer
	c := &cli{env: env{stdout: &out, stderr: &out, getenv: func(string) string { return "" }}, format: "json"}
	if err := c.tell(diagnoses()["delegated"]); err != nil {
		t.Fatal(err)
	}
	var told struct {
		Megaflows map[string]map[string]struct{ Flows, Packets, Bytes int }
	}
	if err := json.Unmarshal(out.Bytes(), &told); err != nil {
		t.Fatal(err)
	}
	v2 := told.Megaflows["v2"]
	if len(told.Megaflows) != 3 || v2["tc"].Flows != 1 || v2["tc"].Packets != 7 || v2["tc"].Bytes != 420 || v2["nic"].Flows != 0 {
		t.Errorf("megaflows are told as %+v", told.Megaflows)
	}
}

// The database says what the findings say.
func TestReadSwitch(t *testing.T) {
	s := ovsdbtest.Start(t, ovsdbtest.Vswitch)
	read := func() vswitch {
		t.Helper()
		sw, err := readSwitch(t.Context(), s.Remote())
		if err != nil {
			t.Fatal(err)
		}
		return sw
	}
	if got, want := read(), (vswitch{bridge: "br-int"}); got != want {
		t.Errorf("an empty database is %+v, want %+v", got, want)
	}
	set := func(m map[any]any) libovsdb.OvsMap { return libovsdb.OvsMap{GoMap: m} }
	s.Transact(
		libovsdb.Operation{Op: "insert", Table: "Bridge", UUIDName: "b", Row: libovsdb.Row{"name": "br-x", "datapath_type": "netdev"}},
		libovsdb.Operation{Op: "insert", Table: "Open_vSwitch", Row: libovsdb.Row{
			"bridges": libovsdb.UUID{GoUUID: "b"}, "external_ids": set(map[any]any{"ovn-bridge": "br-x"}), "ovs_version": "3.1.0",
			"other_config": set(map[any]any{"hw-offload": "true", "tc-policy": "skip_hw"}),
		}},
	)
	if got, want := read(), (vswitch{version: "3.1.0", bridge: "br-x", exists: true, userspace: true, hw: true, policy: "skip_hw"}); got != want {
		t.Errorf("the database is %+v, want %+v", got, want)
	}
	for _, remote := range []string{"unix:/nonexistent/db.sock", "nonsense"} {
		if _, err := readSwitch(t.Context(), remote); err == nil {
			t.Errorf("%s answers", remote)
		}
	}
}

func TestRepresentors(t *testing.T) {
	dir := t.TempDir()
	if f := representors(dir); f.Answer != tc.No {
		t.Errorf("no device: %v", f.Answer)
	}
	for name, id := range map[string]string{"eth0": "", "eth1": "\n", "eth2": "02af\n"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, "phys_switch_id"), []byte(id), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if f := representors(dir); f.Answer != tc.Yes {
		t.Errorf("eth2 is not found: %v", f.Words)
	}
}

// On this kernel, whatever it is, the answer is complete.
func TestDoctor(t *testing.T) {
	s := shell{t: t}
	stdout, stderr, code := s.run("doctor", "--database", "unix:/nonexistent/db.sock", "--device", "lo", "-o", "json")
	want := exitNegative
	if os.Getuid() != 0 {
		want = exitPrecondition
	}
	if code != want || !strings.Contains(stdout, `"kind": "Diagnosis"`) {
		t.Errorf("exit code %d, %s%s", code, stdout, stderr)
	}
	for _, table := range [][]tc.Capability{tc.Capabilities, tc.DeviceCapabilities, {checkDatabase, checkRepresentors}} {
		for _, c := range table {
			if !strings.Contains(stdout, `"name": "`+c.Name+`"`) {
				t.Errorf("nothing about %s", c.Name)
			}
		}
	}
	if _, stderr, code := s.run("doctor", "--device", "nosuchdevice"); code != exitNotFound {
		t.Errorf("exit code %d of a device that does not exist: %s", code, stderr)
	}
}
