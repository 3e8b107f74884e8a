package lab_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/offloadd/offloadd/integration/lab"
)

// TestMain lets the test binary be the process that starts a lab and is killed.
func TestMain(m *testing.M) {
	if os.Getenv("LAB_VICTIM") == "" {
		os.Exit(m.Run())
	}
	l, err := lab.Start(context.Background(), lab.Options{Keep: os.Getenv("LAB_VICTIM") == "keep", Nodes: []lab.NodeConfig{{Name: "n1", Agent: lab.OVNController}}})
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	fmt.Println(l.Name, l.Nodes[0].AgentPID())
	select {}
}

// The daemons of a lab whose process is killed end, and the next Sweep removes the rest. A kept lab goes on, and
// only Remove or Sweep(true) ends it. A lab in use is spared by either.
func TestSweep(t *testing.T) {
	mine, err := lab.Start(t.Context(), lab.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer mine.Close()
	for _, kept := range []bool{false, true} {
		name, agent := killed(t, kept)
		if !kept {
			eventually(t, "the end of the agent", func() bool { return !runs(agent, name) })
		} else if !runs(agent, name) {
			t.Errorf("the agent of a kept lab ended with the process that started it")
		}
		if err := lab.Sweep(false); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat("/tmp/" + name); kept != (err == nil) {
			t.Errorf("kept %v: after Sweep(false), stat = %v", kept, err)
		}
		if kept {
			if err := lab.Remove(name); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the end of the agent", func() bool { return !runs(agent, name) })
		}
		left, err := filepath.Glob("/run/netns/" + name + "*")
		if err != nil || len(left) > 0 {
			t.Errorf("namespaces left: %v, %v", left, err)
		}
	}
	if _, err := os.Stat(mine.Dir); err != nil {
		t.Errorf("a lab in use was swept: %v", err)
	}
}

// killed starts a lab in another process, kills that, and returns the lab's name and its agent's process id.
func killed(t *testing.T, keep bool) (name, agent string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "LAB_VICTIM=killed")
	if keep {
		cmd.Env[len(cmd.Env)-1] = "LAB_VICTIM=keep"
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed, as intended
	name, agent, _ = strings.Cut(strings.TrimSpace(line), " ")
	return name, agent
}

// runs reports whether a process exists and has to do with the lab.
func runs(pid, name string) bool {
	b, err := os.ReadFile("/proc/" + pid + "/cmdline")
	return err == nil && strings.Contains(string(b), name)
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Errorf("%s: not within five seconds", what)
			return
		}
	}
}
