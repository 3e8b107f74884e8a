package probe

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/safchain/ethtool"
	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/pkg/probe/path"
	"github.com/offloadd/offloadd/pkg/probe/result"
)

// A machine is what counts while a run lasts.
type machine struct {
	load         string // of one, five and fifteen minutes
	total, steal uint64 // ticks of all CPUs
	pressure     uint64 // microseconds for which somebody has waited for a CPU; 0: the kernel does not say
	uptime       float64
}

func readMachine() machine {
	m := machine{}
	if f := strings.Fields(read("/proc/loadavg")); len(f) > 3 {
		m.load = strings.Join(f[:3], " ")
	}
	if first, _, _ := strings.Cut(read("/proc/stat"), "\n"); strings.HasPrefix(first, "cpu ") {
		// user, nice, system, idle, iowait, irq, softirq, steal
		for i, f := range strings.Fields(first)[1:min(9, len(strings.Fields(first)))] {
			n, _ := strconv.ParseUint(f, 10, 64) // digits
			if m.total += n; i == 7 {
				m.steal = n
			}
		}
	}
	some, _, _ := strings.Cut(read("/proc/pressure/cpu"), "\n")
	if _, total, ok := strings.Cut(some, "total="); ok {
		m.pressure, _ = strconv.ParseUint(total, 10, 64) // digits
	}
	if f := strings.Fields(read("/proc/uptime")); len(f) > 0 {
		m.uptime, _ = strconv.ParseFloat(f[0], 64) // a number
	}
	return m
}

// slowClocks are clock sources that take longer to read than packets take.
var slowClocks = []string{"hpet", "acpi_pm", "jiffies", "refined-jiffies", "pit"}

// until returns the facts of the machine between the two readings, and what makes its numbers worthless.
func (m machine) until(after machine, cpus [2]int) (result.Machine, []string) {
	f := facts{}
	var u unix.Utsname
	_ = unix.Uname(&u) // it fails on a bad address only
	r := result.Machine{
		Hostname: printable(unix.ByteSliceToString(u.Nodename[:])), Kernel: printable(unix.ByteSliceToString(u.Release[:])),
		CPU: cpuModel(), CPUs: len(onlineCPUs()), Facts: f,
	}
	f.add("architecture", unix.ByteSliceToString(u.Machine[:]))
	f.add("kernel build", unix.ByteSliceToString(u.Version[:]))
	f.add("load before", m.load)
	f.add("load after", after.load)
	if ticks := after.total - m.total; ticks > 0 {
		f.add("steal", fmt.Sprintf("%.2f %%", 100*float64(after.steal-m.steal)/float64(ticks)))
	}
	if elapsed := after.uptime - m.uptime; after.pressure > 0 && elapsed > 0 {
		f.add("pressure on CPUs", fmt.Sprintf("%.2f %%", float64(after.pressure-m.pressure)/1e4/elapsed))
	}
	f.file("cmdline", "/proc/cmdline")
	f.file("clock source", "/sys/devices/system/clocksource/clocksource0/current_clocksource")
	f.file("idle driver", "/sys/devices/system/cpu/cpuidle/current_driver")
	f.file("SMT", "/sys/devices/system/cpu/smt/control")
	f.file("NUMA nodes", "/sys/devices/system/node/online")
	f.file("isolated CPUs", "/sys/devices/system/cpu/isolated")
	f.file("nohz_full CPUs", "/sys/devices/system/cpu/nohz_full")
	f.file("transparent huge pages", "/sys/kernel/mm/transparent_hugepage/enabled")
	f.add("mitigations", mitigations())
	for i, side := range []string{"client", "server"} {
		if cpus[i] < 0 {
			continue
		}
		f.file(side+" CPU governor", fmt.Sprintf("/sys/devices/system/cpu/cpu%d/cpufreq/scaling_governor", cpus[i]))
		f.add(side+" CPU NUMA node", readTopology(cpus[i]).node)
		f.file(side+" CPU siblings", fmt.Sprintf("/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpus[i]))
	}
	f.file("default IRQ affinity", "/proc/irq/default_smp_affinity")
	f.add("IRQ affinity", affinities("/proc/irq/*/smp_affinity_list"))
	f.add("RPS", steering("rx-*/rps_cpus"))
	f.add("RFS", steering("rx-*/rps_flow_cnt"))
	f.add("XPS", steering("tx-*/xps_cpus"))
	for _, name := range sysctls {
		f.file("sysctl "+strings.ReplaceAll(name, "/", "."), "/proc/sys/"+name)
	}
	f.add("NICs", nics())
	f.add("nft rules", nftRules())
	f.file("iptables tables", "/proc/net/ip_tables_names")
	f.file("openvswitch module", "/sys/module/openvswitch/srcversion")
	var doubts []string
	if clock := f["clock source"]; slices.Contains(slowClocks, clock) {
		doubts = append(doubts, "the clock is "+clock)
	}
	return r, doubts
}

// sysctls are those that studies tune, and those that change a path.
var sysctls = []string{
	"kernel/numa_balancing", "kernel/sched_rt_runtime_us", "kernel/sched_migration_cost_ns", "kernel/timer_migration", "kernel/nmi_watchdog",
	"net/core/busy_poll", "net/core/busy_read", "net/core/default_qdisc", "net/core/dev_weight", "net/core/netdev_budget",
	"net/core/netdev_max_backlog", "net/core/rmem_max", "net/core/rps_sock_flow_entries", "net/core/wmem_max",
	"net/ipv4/ip_forward", "net/ipv4/tcp_congestion_control", "net/ipv4/tcp_rmem", "net/ipv4/tcp_timestamps", "net/ipv4/tcp_wmem",
	"net/netfilter/nf_conntrack_max",
}

// facts have no empty values, and none that does not print.
type facts map[string]string

func (f facts) add(name, value string) {
	if value = printable(value); value != "" {
		f[name] = value
	}
}

func (f facts) file(name, path string) { f.add(name, read(path)) }

// maxFact bounds a fact: a command line, or the affinities of a large machine.
const maxFact = 4096

// printable makes one line of a text.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if strconv.IsPrint(r) {
			return r
		}
		return ' '
	}, s)
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > maxFact {
		s = strings.ToValidUTF8(s[:maxFact], "") + " ..."
	}
	return s
}

// read returns what is in a file; nothing if it is not there: kernels differ.
func read(path string) string {
	b, _ := os.ReadFile(path)
	return strings.TrimSpace(string(b))
}

func cpuModel() string {
	for line := range strings.Lines(read("/proc/cpuinfo")) {
		name, value, _ := strings.Cut(line, ":")
		switch strings.TrimSpace(name) {
		case "model name", "Model", "cpu model", "host":
			return printable(value)
		}
	}
	return ""
}

// mitigations are those of the CPU's vulnerabilities that it has.
func mitigations() string {
	files, _ := filepath.Glob("/sys/devices/system/cpu/vulnerabilities/*") // the pattern is one
	var all []string
	for _, file := range files {
		if text := read(file); text != "" && text != "Not affected" {
			all = append(all, filepath.Base(file)+": "+strings.TrimPrefix(text, "Mitigation: "))
		}
	}
	return strings.Join(all, "; ")
}

// affinities counts IRQs by the CPUs that take them.
func affinities(pattern string) string {
	files, _ := filepath.Glob(pattern) // the pattern is one
	counts := map[string]int{}
	for _, path := range files {
		if cpus := read(path); cpus != "" {
			counts[cpus]++
		}
	}
	var all []string
	for cpus, n := range counts {
		all = append(all, fmt.Sprintf("%d on %s", n, cpus))
	}
	slices.Sort(all)
	return strings.Join(all, "; ")
}

// steering are the values of a file of the queues of the machine's own devices that are not 0.
func steering(pattern string) string {
	files, _ := filepath.Glob("/sys/class/net/*/queues/" + pattern) // the pattern is one
	var all []string
	for _, path := range files {
		if value := read(path); strings.Trim(value, "0,") != "" {
			parts := strings.Split(path, "/") // "", sys, class, net, DEVICE, queues, QUEUE, FILE
			all = append(all, parts[4]+"/"+parts[6]+" "+value)
		}
	}
	return strings.Join(all, "; ")
}

// nftRules counts the rules of the machine's own network namespace; nothing if the kernel has no nf_tables.
func nftRules() string {
	n, err := path.CountRules()
	if err != nil {
		return ""
	}
	return strconv.Itoa(n)
}

// nics are the machine's network devices that have a device of a bus below them, by driver and firmware. Functions and representors, of which
// there may be hundreds, are their NIC's.
func nics() string {
	devices, _ := filepath.Glob("/sys/class/net/*/device") // the pattern is one
	e, err := ethtool.NewEthtool()
	if err != nil {
		return ""
	}
	defer e.Close()
	names := map[string][]string{}
	for _, device := range devices {
		name := filepath.Base(filepath.Dir(device))
		port := read("/sys/class/net/" + name + "/phys_port_name")
		if _, err := os.Stat(device + "/physfn"); err == nil || strings.Contains(port, "vf") || strings.Contains(port, "sf") {
			continue
		}
		d, err := e.DriverInfo(name)
		if err != nil {
			continue // it is gone, or its driver does not say
		}
		what := d.Driver
		if d.FwVersion != "" && d.FwVersion != "N/A" {
			what += ", firmware " + d.FwVersion
		}
		names[what] = append(names[what], name)
	}
	var all []string
	for what, n := range names {
		all = append(all, strings.Join(n, " ")+": "+what)
	}
	slices.Sort(all)
	return strings.Join(all, "; ")
}
