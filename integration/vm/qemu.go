package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// qemuModules are what a guest needs to mount the host's directories. What else it uses, it loads itself.
var qemuModules = []string{"virtio_pci", "9pnet_virtio", "9p", "overlay"}

// qemu is the kernel of Debian's package under QEMU.
type qemu struct {
	dir     string // with the package's contents
	release string
	kvm     bool
}

func newQEMU(ctx context.Context, log io.Writer) (qemu, error) {
	if _, err := need("qemu-system-x86_64"); err != nil {
		return qemu{}, err
	}
	pkg, version, err := qemuPackage(ctx)
	if err != nil {
		return qemu{}, err
	}
	q := qemu{release: strings.TrimPrefix(pkg, "linux-image-")}
	q.dir, err = cached("qemu-"+version, log, func(dir string) error {
		fmt.Fprintf(log, "vm qemu: fetching %s %s\n", pkg, version)
		return unpack(ctx, dir, pkg, version, q.release)
	})
	if err != nil {
		return qemu{}, err
	}
	q.kvm, err = q.tryKVM(ctx, log)
	return q, err
}

// qemuPackage returns the name of the package with the kernel that users of this release have, as the meta package says it, and
// its version.
func qemuPackage(ctx context.Context) (pkg, version string, err error) {
	depends, err := output(ctx, "/", "apt-cache", "depends", "--important", "linux-image-amd64")
	if err != nil {
		return "", "", err
	}
	_, pkg, ok := strings.Cut(depends, "Depends: ")
	if !ok {
		return "", "", errors.New("linux-image-amd64 is not known to apt: run apt-get update")
	}
	pkg, _, _ = strings.Cut(pkg, "\n")
	policy, err := output(ctx, "/", "apt-cache", "policy", pkg)
	if err != nil {
		return "", "", err
	}
	_, version, ok = strings.Cut(policy, "Candidate: ")
	if !ok {
		return "", "", fmt.Errorf("%s is not known to apt: run apt-get update", pkg)
	}
	version, _, _ = strings.Cut(version, "\n")
	return pkg, version, nil
}

// unpack fetches a kernel package, and makes dir the root that it would have been installed into.
func unpack(ctx context.Context, dir, pkg, version, release string) error {
	const script = `
		apt-get download -q -o APT::Sandbox::User=root "$1=$2" >&2
		dpkg -x ./*.deb .
		rm ./*.deb
		depmod -b "$PWD" "$3"
	`
	_, err := output(ctx, dir, "sh", "-ec", script, "sh", pkg, version, release)
	return err
}

// tryKVM boots a guest that ends at once, under KVM, unless that was done since this machine was booted: where
// /dev/kvm exists, a guest may nevertheless fail to start, or hang.
func (q qemu) tryKVM(ctx context.Context, log io.Writer) (bool, error) {
	if _, err := os.Stat("/dev/kvm"); err != nil {
		return false, nil //nolint:nilerr // the answer is no
	}
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return false, err
	}
	answer := filepath.Join(filepath.Dir(q.dir), "kvm")
	yes, no := append([]byte("yes "), id...), append([]byte("no "), id...)
	if b, err := os.ReadFile(answer); err == nil && (bytes.Equal(b, yes) || bytes.Equal(b, no)) {
		return bytes.Equal(b, yes), nil
	}
	const quick = 8 * time.Second // a guest takes two
	j := Job{Kernel: QEMU, Argv: []string{"true"}, Dir: "/", Timeout: quick, Memory: 512}
	if err := complete(&j); err != nil {
		return false, err
	}
	busybox, err := need("busybox")
	if err != nil {
		return false, err
	}
	q.kvm = true
	status, err := boot(ctx, q, j, busybox)
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	verdict := yes
	if err != nil || status != 0 {
		fmt.Fprintf(log, "vm qemu: no KVM, a trial said: %v; going on with TCG\n", err)
		verdict = no
	}
	return bytes.Equal(verdict, yes), os.WriteFile(answer, verdict, 0o644)
}

func (q qemu) modules() string { return filepath.Join(q.dir, "lib", "modules", q.release) }

func (q qemu) world() (world, error) {
	order, err := q.order()
	if err != nil {
		return world{}, err
	}
	w := world{modulesDir: q.modules(), release: q.release}
	for _, m := range order {
		w.modules = append(w.modules, filepath.Base(m))
	}
	w.source = func(i int, _ string) string {
		cache := "none"
		if i == 0 {
			cache = "loose" // nobody else writes what a guest reads
		}
		return fmt.Sprintf("-t 9p -o trans=virtio,version=9p2000.L,msize=1048576,cache=%s vm%d", cache, i)
	}
	return w, nil
}

func (q qemu) order() ([]string, error) {
	dep, err := os.ReadFile(filepath.Join(q.modules(), "modules.dep"))
	if err != nil {
		return nil, err
	}
	return loadOrder(string(dep), qemuModules)
}

func (q qemu) files() ([]entry, error) {
	order, err := q.order()
	if err != nil {
		return nil, err
	}
	var entries []entry
	for _, m := range order {
		b, err := os.ReadFile(filepath.Join(q.modules(), m))
		if err != nil {
			return nil, err
		}
		entries = append(entries, entry{"modules/" + filepath.Base(m), modeFile, b})
	}
	return entries, nil
}

func (q qemu) processes() bool { return false }

// command emulates a CPU that has what Go and Debian need and little more: conntrack(8) crashed on `-cpu max`.
func (q qemu) command(initrd string, memory int, mounts []mount) []string {
	argv := []string{
		"qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-smp", "2", "-m", fmt.Sprint(memory),
		"-kernel", filepath.Join(q.dir, "boot", "vmlinuz-"+q.release), "-initrd", initrd,
		"-append", "console=ttyS0 panic=-1 loglevel=4 mitigations=off",
		"-chardev", "file,id=console,path=/dev/fd/1", "-serial", "chardev:console",
		"-chardev", "file,id=stdout,path=/dev/fd/3", "-serial", "chardev:stdout",
		"-chardev", "file,id=stderr,path=/dev/fd/4", "-serial", "chardev:stderr",
		"-virtfs", "local,path=/,mount_tag=vm0,security_model=none,readonly=on,multidevs=remap",
	}
	if q.kvm {
		argv = append(argv, "-accel", "kvm", "-cpu", "host")
	} else {
		argv = append(argv, "-accel", "tcg,thread=multi", "-cpu", "Nehalem,+rdrand")
	}
	for i, m := range mounts {
		argv = append(argv, "-virtfs", fmt.Sprintf("local,path=%s,mount_tag=vm%d,security_model=none,multidevs=remap", m.host, i+1))
	}
	return argv
}
