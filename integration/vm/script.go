package vm

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// share is where a guest has the directory through which it and Run talk: the file guest is the script that is run,
// and status is what it leaves.
const share = "/run/vm"

// A mount is a directory of the host that the guest has at the same path, writable, or at at if that is set.
type mount struct {
	host, at string
}

// A world is what the first program in a guest has to know.
type world struct {
	modules []string // to insert, files of the initial RAM file system

	// source returns the arguments of mount(8) without the mount point: i is the mount's number, 0 the host's root.
	source func(i int, host string) string

	mounts []mount  // from number 1
	shown  []string // directories of the host below those that are empty, to have nevertheless

	modulesDir string // host's directory of modules, or empty
	release    string // of the kernel, as in uname -r
}

// hidden are the directories that are empty in a guest.
var hidden = []string{"/tmp", "/run", "/var/log"}

// isHidden reports whether a path of the host is not seen in the guest.
func isHidden(path string) bool {
	return slices.ContainsFunc(hidden, func(h string) bool { return path == h || strings.HasPrefix(path, h+"/") })
}

// initScript is the first program in a guest, in its initial RAM file system: it makes the file system and goes on with
// the share's script.
func initScript(w world) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("#!/bin/busybox sh")
	line("/bin/busybox --install -s /bin")
	line("mount -t devtmpfs dev /dev")
	line("fail() { echo \"vm: $* failed\" >/dev/console; poweroff -f; sleep 60; }")
	line("run() { \"$@\" || fail \"$@\"; }")
	for _, m := range w.modules {
		line("run insmod /modules/%s", quote(m))
	}
	line("run mount -r %s /lower", w.source(0, "/"))
	line("run mount -t tmpfs -o size=90%% tmpfs /upper")
	line("run mkdir /upper/root /upper/work")
	line("run mount -t overlay -o lowerdir=/lower,upperdir=/upper/root,workdir=/upper/work overlay /new")
	line("run mount -t proc proc /new/proc")
	line("run mount -t sysfs sysfs /new/sys")
	line("run mount -t debugfs debugfs /new/sys/kernel/debug")
	line("run mount --move /dev /new/dev")
	line("run mkdir -p /new/dev/pts /new/dev/shm")
	line("run mount -t devpts devpts /new/dev/pts")
	line("run mount -t tmpfs -o mode=1777 tmpfs /new/dev/shm")
	for _, h := range hidden {
		mode := "755"
		if h == "/tmp" {
			mode = "1777"
		}
		line("run mount -t tmpfs -o mode=%s,size=90%% tmpfs /new%s", mode, h)
	}
	line("run mkdir -p /new/run/lock")
	for _, dir := range w.shown {
		line("run mkdir -p /new%s", quote(dir))
		line("run mount --bind /lower%s /new%[1]s", quote(dir))
	}
	for i, m := range w.mounts {
		at := m.at
		if at == "" {
			at = m.host
		}
		line("run mkdir -p /new%s", quote(at))
		line("run mount %s /new%s", w.source(i+1, m.host), quote(at))
	}
	if w.modulesDir != "" {
		line("run mkdir -p /new/lib/modules")
		line("rm -rf /new/lib/modules/%s", w.release)
		line("run ln -s %s /new/lib/modules/%s", quote(w.modulesDir), w.release)
	}
	line("exec switch_root /new /bin/sh %s/guest", share)
	return b.String()
}

// guestScript runs the job as the guest's first process, with its output on the serial lines 1 and 2, writes its exit
// status into the share, and ends the guest. Pipes stand between the program and the lines, so that it
// does not take them for a terminal. A process that the job leaves behind can hold them open, so that their end is not
// waited for long.
func guestScript(j Job, busybox string) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("export PATH=/usr/sbin:/usr/bin:/sbin:/bin")
	line("stty -F /dev/ttyS1 115200 raw -echo; stty -F /dev/ttyS2 115200 raw -echo")
	line("ip link set lo up")
	line("mkfifo /run/vm.out /run/vm.err")
	line("cat /run/vm.out >/dev/ttyS1 & out=$!")
	line("cat /run/vm.err >/dev/ttyS2 & err=$!")
	argv := append([]string{"env", "-i", "-C", j.Dir}, j.Env...)
	argv = append(append(argv, "OFFLOADD_VM="+string(j.Kernel)), j.Argv...)
	for i, a := range argv {
		argv[i] = quote(a)
	}
	line("%s </dev/null >/run/vm.out 2>/run/vm.err", strings.Join(argv, " "))
	line("status=$?")
	line("n=0; while [ $n -lt 20 ] && { kill -0 $out || kill -0 $err; } 2>/dev/null; do sleep 0.1; n=$((n+1)); done")
	line("stty -F /dev/ttyS1 raw; stty -F /dev/ttyS2 raw") // returns when all is sent: TCSADRAIN
	line("echo $status >%s/status", share)
	line("sync")
	for _, m := range j.Results {
		line("umount %s", quote(m))
	}
	line("umount %s", share)
	line("exec %s poweroff -f", quote(busybox))
	return b.String()
}

// shown returns the directories of the job that would be hidden: its program's and the one it runs in.
func shown(j Job) []string {
	var dirs []string
	for _, d := range []string{filepath.Dir(j.Argv[0]), j.Dir} {
		if isHidden(d) && !slices.Contains(hidden, d) && !slices.Contains(dirs, d) {
			dirs = append(dirs, d)
		}
	}
	return dirs
}

// quote makes a word of a shell's command line that stands for s.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
