package cniconf

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/offloadd/offloadd/integration/attach"
	"github.com/offloadd/offloadd/integration/lab"
	"github.com/offloadd/offloadd/integration/lab/labtest"
)

var (
	pluginPath = flag.String("plugin", "", "test the plugin with this `path` instead of offload-cni")
	confPath   = flag.String("conf", "", "`file` with its configuration")
	argsFormat = flag.String("args", "", "its `CNI_ARGS`; %d is the number of the container")
)

// containers is how many containers a test may have at a time.
const containers = 8

// A rig is a plugin and where it runs.
type rig struct {
	t      *testing.T
	plugin string
	host   string // name of the namespace in which it runs
	conf   map[string]any
	args   string // with %d
	lab    *labtest.Lab
}

// newRig makes the place for one test. What the test leaves behind is a failure of it.
func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, plugin: *pluginPath, args: *argsFormat, conf: map[string]any{}}
	if r.plugin == "" {
		r.useLab()
	} else {
		r.host = r.namespace("host")
		text, err := os.ReadFile(*confPath)
		if err == nil {
			err = json.Unmarshal(text, &r.conf)
		}
		if err != nil {
			t.Fatalf("-conf %s: %v", *confPath, err)
		}
	}
	// The first container may make things that stay, like a bridge.
	warm := r.container(1)
	r.must(warm.run("ADD", newest, nil))
	r.must(warm.run("DEL", newest, nil))
	before := r.links(r.host)
	t.Cleanup(func() {
		if after := r.links(r.host); !t.Failed() && !slices.Equal(before, after) {
			t.Errorf("links of the host: before %v, after %v", before, after)
		}
	})
	return r
}

// useLab is a node with offloadd and a switch with the logical ports c1 to c8.
func (r *rig) useLab() {
	r.lab = labtest.Start(r.t, lab.Options{Nodes: []lab.NodeConfig{{Name: "n1", Agent: lab.Offloadd}}})
	script := "ls-add sw0\n"
	for i := 1; i <= containers; i++ {
		script += fmt.Sprintf("lsp-add sw0 c%d -- lsp-set-addresses c%d '50:54:00:00:00:0%d 10.0.0.1%d fd10::1%d'\n", i, i, i, i, i)
	}
	r.lab.NB(script)
	r.lab.Sync()
	path, err := attach.Build(r.t.Context(), r.t.TempDir())
	r.lab.Check(err)
	n := r.lab.Node("n1")
	r.plugin, r.host, r.args = filepath.Join(path, "offload-cni"), n.Netns(), "LogicalPort=c%d"
	r.conf["type"], r.conf["socket"], r.conf["timeout"] = "offload-cni", attach.Socket(n), "20s"
}

// namespace makes a network namespace that ends with the test.
func (r *rig) namespace(name string) string {
	r.t.Helper()
	full := fmt.Sprintf("cniconf-%d-%s", os.Getpid(), name)
	r.sh("ip", "netns", "add", full)
	r.t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", full).Run() }) // a test may have removed it
	return full
}

func (r *rig) sh(argv ...string) string {
	r.t.Helper()
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		r.t.Fatalf("%v: %v\n%s", argv, err, out)
	}
	return string(out)
}

// links lists the interfaces of a namespace.
func (r *rig) links(namespace string) []string {
	r.t.Helper()
	var names []string
	for line := range strings.Lines(r.sh("ip", "-n", namespace, "-br", "link")) {
		name, _, _ := strings.Cut(strings.Fields(line)[0], "@")
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// A container is one to be.
type container struct {
	*rig
	env   map[string]string
	space string
}

// container makes a namespace and the environment for the container with a number.
func (r *rig) container(i int) *container {
	r.t.Helper()
	space := r.namespace(fmt.Sprintf("%d-%d", i, len(r.t.Name())))
	c := &container{rig: r, space: space, env: map[string]string{
		"CNI_CONTAINERID": space,
		"CNI_IFNAME":      "eth0",
		"CNI_NETNS":       attach.Netns(space),
		"CNI_PATH":        filepath.Dir(r.plugin),
	}}
	if r.args != "" {
		c.env["CNI_ARGS"] = fmt.Sprintf(r.args, i)
	}
	r.t.Cleanup(func() { _, _ = c.run("DEL", newest, nil) }) // a failed test may leave it
	return c
}

// with returns the container with other variables; "" removes one.
func (c *container) with(vars map[string]string) *container {
	d := *c
	d.env = maps.Clone(c.env)
	maps.Copy(d.env, vars)
	return &d
}

// newest is the version of the specification that configurations have unless a test says otherwise.
const newest = "1.1.0"

// An answer is what a plugin printed: a result, or an error.
type answer struct {
	CNIVersion string `json:"cniVersion"`
	Interfaces []struct{ Name, MAC, Sandbox string }
	IPs        []struct {
		Interface *int
		Address   string
		Version   string
	} `json:"ips"`
	SupportedVersions []string `json:"supportedVersions"`

	Code    *uint
	Msg     string
	Details string

	raw string
}

func (a answer) code() uint {
	if a.Code == nil {
		return 0
	}
	return *a.Code
}

// run runs the plugin with the configuration of a version, to which extra is added.
func (c *container) run(verb, version string, extra map[string]any) (answer, error) {
	conf := maps.Clone(c.conf)
	conf["cniVersion"], conf["name"] = version, "cniconf"
	maps.Copy(conf, extra)
	text, err := json.Marshal(conf)
	if err != nil {
		return answer{}, err
	}
	return c.feed(verb, string(text))
}

// feed runs the plugin with something on its standard input. The answer of a plugin that succeeds and prints nothing is empty.
func (c *container) feed(verb, stdin string) (answer, error) {
	cmd := exec.Command("nsenter", "--net="+attach.Netns(c.host), c.plugin)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	if verb != "" {
		cmd.Env = append(cmd.Env, "CNI_COMMAND="+verb)
	}
	for _, k := range slices.Sorted(maps.Keys(c.env)) {
		if v := c.env[k]; v != "" {
			cmd.Env = append(cmd.Env, k+"="+v)
		}
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		return answer{}, err
	}
	a := answer{raw: string(out)}
	if len(bytes.TrimSpace(out)) > 0 {
		if err := json.Unmarshal(out, &a); err != nil {
			return a, fmt.Errorf("%s prints %q, which is not JSON: %w", verb, out, err)
		}
	}
	switch {
	case err == nil && a.Code != nil:
		return a, fmt.Errorf("%s succeeds and prints an error: %s", verb, out)
	case err != nil && (a.code() == 0 || a.Msg == ""):
		return a, fmt.Errorf("%s fails without an error on its standard output: %q, stderr %q", verb, out, &stderr)
	}
	return a, nil
}

// must ends the test unless the plugin succeeded.
func (r *rig) must(a answer, err error) answer {
	r.t.Helper()
	if err == nil && a.Code != nil {
		err = fmt.Errorf("code %d: %s (%s)", a.code(), a.Msg, a.Details)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return a
}

// refuses fails the test unless the plugin failed with one of the codes (none: any) and a message that contains the words.
func (r *rig) refuses(what, words string, codes ...uint) func(answer, error) answer {
	return func(a answer, err error) answer {
		r.t.Helper()
		switch {
		case err != nil:
			r.t.Errorf("%s: %v", what, err)
		case a.Code == nil || len(codes) > 0 && !slices.Contains(codes, a.code()) || !strings.Contains(a.Msg+a.Details, words):
			r.t.Errorf("%s: %s\nwant an error with code %v and %q", what, a.raw, codes, words)
		}
		return a
	}
}
