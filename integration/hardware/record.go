package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/offloadd/offloadd/integration/testnic"
)

// A record is what is stored of a run: result.json, what the machine is, what doctor says, and the output of each suite.
type record struct {
	dir string

	Device    string    `json:"device"`
	Wire      string    `json:"wire"`
	Changed   bool      `json:"changed"`
	Started   time.Time `json:"started"`
	Preflight []line    `json:"preflight"`
	Suites    []result  `json:"suites"`
}

// A result is what became of a suite.
type result struct {
	Name    string   `json:"name"`
	Passed  bool     `json:"passed"`
	Seconds float64  `json:"seconds"`
	Error   string   `json:"error,omitempty"`
	Log     string   `json:"log"`
	Tests   []string `json:"tests,omitempty"` // "PASS TestInHardware"
}

func (r result) String() string {
	counts := map[string]int{}
	for _, t := range r.Tests {
		word, _, _ := strings.Cut(t, " ")
		counts[word]++
	}
	s := fmt.Sprintf("%-8s %-12s %.0f s", map[bool]string{true: "passed", false: "FAILED"}[r.Passed], r.Name, r.Seconds)
	if len(r.Tests) > 0 {
		s += fmt.Sprintf(", %d tests: %d passed, %d failed, %d skipped", len(r.Tests), counts["PASS"], counts["FAIL"], counts["SKIP"])
	}
	if r.Error != "" {
		s += ": " + r.Error
	}
	return s + ": " + r.Log
}

func newRecord(o options, lines []line) (*record, error) {
	now := time.Now()
	name := now.UTC().Format("20060102-150405") + "-" + strings.NewReplacer("/", "-", ":", "-").Replace(o.handle.String())
	dir, err := filepath.Abs(filepath.Join(o.results, name))
	if err == nil {
		err = os.MkdirAll(dir, 0o755)
	}
	if err != nil {
		return nil, err
	}
	return &record{dir: dir, Device: o.handle.String(), Wire: o.wire, Changed: o.change, Started: now, Preflight: lines}, nil
}

// facts stores what machine, NIC and kernel are, as commands and doctor tell it. A command that is not there, or fails, is part of the answer.
func (r *record) facts(ctx context.Context, nic *testnic.Device, offloadctl string) error {
	var b bytes.Buffer
	commands := [][]string{
		{"uname", "-a"},
		{"cat", "/etc/os-release"},
		{"cat", "/proc/cmdline"},
		{"lscpu"},
		{"free", "-m"},
		{"devlink", "dev", "info", r.Device},
		{"devlink", "dev", "eswitch", "show", r.Device},
		{"devlink", "dev", "param", "show", r.Device},
		{"devlink", "port", "show"},
		{"devlink", "resource", "show", r.Device},
		{"devlink", "health", "show"},
		{"ethtool", "-i", nic.Uplink()},
		{"ethtool", "-k", nic.Uplink()},
		{"ethtool", nic.Uplink()},
		{"ip", "-d", "link"},
		{"ovs-vswitchd", "--version"},
		{"ovn-northd", "--version"},
		{"tc", "-V"},
		{"sh", "-c", "grep -E 'MLX5|NET_TC_SKB_EXT|NET_ACT_CT|NET_CLS_FLOWER|NF_FLOW_TABLE' /boot/config-$(uname -r)"},
	}
	if bus, dev, _ := strings.Cut(r.Device, "/"); bus == "pci" {
		commands = append(commands, []string{"lspci", "-vv", "-s", dev})
	}
	for _, argv := range commands {
		fmt.Fprintf(&b, "# %s\n", strings.Join(argv, " "))
		say(ctx, &b, argv...)
		b.WriteString("\n")
	}
	if err := os.WriteFile(filepath.Join(r.dir, "machine.txt"), b.Bytes(), 0o644); err != nil {
		return err
	}
	// There is no Open vSwitch yet, which doctor says too.
	for file, args := range map[string][]string{"doctor.txt": nil, "doctor.json": {"-o", "json"}} {
		b.Reset()
		say(ctx, &b, append([]string{offloadctl, "doctor", "--device", nic.VFRepresentor(0)}, args...)...)
		if err := os.WriteFile(filepath.Join(r.dir, file), b.Bytes(), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// say appends what a command prints, and why it failed if it did.
func say(ctx context.Context, b *bytes.Buffer, argv ...string) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput()
	b.Write(out)
	if err != nil {
		fmt.Fprintf(b, "%v\n", err)
	}
}

// suite runs one and stores what it prints. A suite that fails is a result.
func (r *record) suite(ctx context.Context, o options, s suite) (result, error) {
	argv := s.argv(o)
	bin, err := filepath.Abs(o.bin)
	if err != nil {
		return result{}, err
	}
	argv[0] = filepath.Join(bin, argv[0])
	res := result{Name: s.name, Log: filepath.Join(r.dir, s.name+".txt")}
	log, err := os.Create(res.Log)
	if err != nil {
		return res, err
	}
	defer log.Close() //nolint:errcheck // what is missing there is seen
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.WaitDelay = time.Minute
	cmd.Env = append(os.Environ(), testnic.NIC+"="+r.Device, testnic.Wire+"="+o.wire, testnic.Change+"="+map[bool]string{true: "1"}[o.change],
		"OFFLOADD="+filepath.Join(bin, "offloadd"), "OFFLOADD_FAULTS="+filepath.Join(bin, "offloadd-faults"), "CNIBIN="+bin)
	if s.alone {
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	}
	begin := time.Now()
	err = cmd.Run()
	res.Seconds = time.Since(begin).Seconds()
	switch {
	case ctx.Err() != nil:
		res.Error = fmt.Sprintf("not done in %v, or interrupted", s.timeout)
	case err != nil:
		res.Error = err.Error()
	default:
		res.Passed = true
	}
	if _, err := log.Seek(0, io.SeekStart); err != nil {
		return res, err
	}
	res.Tests, err = outcomes(log)
	r.Suites = append(r.Suites, res)
	return res, errors.Join(err, r.write())
}

// outcomes reads what go test -v says of each test, of those inside others too.
func outcomes(log io.Reader) (tests []string, err error) {
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		rest, ok := strings.CutPrefix(strings.TrimSpace(lines.Text()), "--- ")
		verdict, name, ok2 := strings.Cut(rest, ": ")
		if ok && ok2 && (verdict == "PASS" || verdict == "FAIL" || verdict == "SKIP") {
			name, _, _ = strings.Cut(name, " (")
			tests = append(tests, verdict+" "+name)
		}
	}
	return tests, lines.Err()
}

// write stores the record.
func (r *record) write() error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(r.dir, "result.json"), append(b, '\n'), 0o644)
}
