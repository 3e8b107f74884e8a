package probe

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// allowedCPUs are those on which this process may run, ascending.
func allowedCPUs() ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("sched_getaffinity: %w", err)
	}
	var all []int
	for i := range len(set) * 64 {
		if set.IsSet(i) {
			all = append(all, i)
		}
	}
	return all, nil
}

func onlineCPUs() []int {
	files, _ := filepath.Glob("/sys/devices/system/cpu/cpu[0-9]*") // the pattern is one
	var all []int
	for _, path := range files {
		n, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(path), "cpu"))
		if online := read(path + "/online"); err == nil && online != "0" {
			all = append(all, n)
		}
	}
	slices.Sort(all)
	return all
}

// A topology is where a CPU is.
type topology struct{ core, node string }

func readTopology(cpu int) topology {
	dir := fmt.Sprintf("/sys/devices/system/cpu/cpu%d/", cpu)
	t := topology{core: read(dir + "topology/thread_siblings_list")}
	if nodes, _ := filepath.Glob(dir + "node[0-9]*"); len(nodes) > 0 { // the pattern is one
		t.node = strings.TrimPrefix(filepath.Base(nodes[0]), "node")
	}
	return t
}

// beside chooses CPUs for those who send and receive a stream while others measure on the pair: others of the same node, or if there are none any others. If
// there are none at all it is the pair: the sender's is the client's then, as it is on a node that sends both.
func beside(allowed []int, pair [2]int, where func(int) topology) [2]int {
	var near, far []int
	for _, cpu := range slices.Backward(allowed) {
		switch {
		case cpu == pair[0] || cpu == pair[1]:
		case pair[1] >= 0 && where(cpu).node == where(pair[1]).node:
			near = append(near, cpu)
		default:
			far = append(far, cpu)
		}
	}
	switch others := append(near, far...); len(others) {
	case 0:
		return pair
	case 1:
		return [2]int{others[0], others[0]}
	default:
		return [2]int{others[1], others[0]}
	}
}

// pair chooses CPUs for the client and the server: on one NUMA node, on two cores, and the last ones, since most interrupts are those of
// the first.
func pair(allowed []int, where func(int) topology) [2]int {
	server := allowed[len(allowed)-1]
	best, points := server, -1
	for _, cpu := range slices.Backward(allowed[:len(allowed)-1]) {
		n := 0
		a, b := where(cpu), where(server)
		if a.node == b.node {
			n++
		}
		if a.core != b.core || a.core == "" {
			n += 2
		}
		if n > points {
			best, points = cpu, n
		}
	}
	return [2]int{best, server}
}
