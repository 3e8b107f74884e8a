package vm

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// umlSource is what Debian's package linux-source-6.1 installs.
const (
	umlPackage = "linux-source-6.1"
	umlSource  = "/usr/src/linux-source-6.1.tar.xz"
)

//go:embed uml.config
var umlConfig string

// uml is a user-mode kernel: a program that is a kernel, whose processes are processes of the host.
type uml struct {
	kernel string // the program
}

func newUML(ctx context.Context, log io.Writer) (uml, error) {
	version, err := output(ctx, "/", "dpkg-query", "--showformat=${Version}", "--show", umlPackage)
	if err != nil || version == "" {
		return uml{}, fmt.Errorf("no package %s: `tools/prepare vm` installs it: %w", umlPackage, err)
	}
	name := fmt.Sprintf("uml-%s-%x", version, sha256.Sum256([]byte(umlConfig)))
	dir, err := cached(name[:len("uml-")+len(version)+1+12], log, func(dir string) error {
		fmt.Fprintf(log, "vm uml: building the kernel of %s %s, which takes some minutes; the log is %s\n", umlPackage, version, filepath.Join(dir, "log"))
		return buildUML(ctx, dir)
	})
	return uml{kernel: filepath.Join(dir, "linux")}, err
}

// umlBuild is where, beside the kernel, is what modules of it are built in.
const umlBuild = "build"

// buildUML makes the program linux, its config, and umlBuild in dir.
func buildUML(ctx context.Context, dir string) error {
	for _, p := range []string{"make", "gcc", "flex", "bison", "bc", "xz"} {
		if _, err := need(p); err != nil {
			return err
		}
	}
	work := filepath.Join(dir, "work")
	if err := os.Mkdir(work, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "fragment"), []byte(umlConfig), 0o644); err != nil {
		return err
	}
	const script = `
		exec >>../log 2>&1 </dev/null
		tar xf "$1" --strip-components=1
		make ARCH=um defconfig
		ARCH=um scripts/kconfig/merge_config.sh -m .config ../fragment
		make ARCH=um olddefconfig
		cp .config ../config
	`
	if _, err := output(ctx, work, "sh", "-ec", script, "sh", umlSource); err != nil {
		return errors.Join(err, errors.New(string(lastLines(filepath.Join(dir, "log"), 20))))
	}
	config, err := os.ReadFile(filepath.Join(dir, "config"))
	if err != nil {
		return err
	}
	if lost := lostOptions(umlConfig, string(config)); len(lost) > 0 {
		return fmt.Errorf("uml.config: this kernel does not take %s", strings.Join(lost, ", "))
	}
	const build = `
		exec >>../log 2>&1 </dev/null
		nice make ARCH=um -j2 linux modules_prepare
		strip -o ../linux linux
		mkdir "../$1"
		cp -a Makefile scripts include .config "../$1"
		cp vmlinux.symvers "../$1/Module.symvers"
		mkdir "../$1/arch"
		cp -a arch/um arch/x86 "../$1/arch"
		find "../$1/arch" "../$1/include" -name '*.[coS]' -delete
	`
	if _, err := output(ctx, work, "sh", "-ec", build, "sh", umlBuild); err != nil {
		return errors.Join(err, errors.New(string(lastLines(filepath.Join(dir, "log"), 20))))
	}
	return os.RemoveAll(work)
}

// lostOptions returns the lines of a fragment that the configuration made from it does not have. An option that is n in the
// fragment may be unset, or unknown, in the configuration.
func lostOptions(fragment, config string) []string {
	have := strings.Split(config, "\n")
	var lost []string
	for line := range strings.Lines(fragment) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, off := strings.CutSuffix(line, "=n")
		if off == slices.ContainsFunc(have, func(h string) bool { return h == line || off && strings.HasPrefix(h, name+"=") }) {
			lost = append(lost, line)
		}
	}
	return lost
}

func (u uml) world() (world, error) {
	return world{
		source: func(_ int, host string) string { return "-t hostfs -o " + quote(host) + " none" },
	}, nil
}

func (u uml) files() ([]entry, error) { return nil, nil }

func (u uml) processes() bool { return true }

// command lets serial line 0 and the other consoles be nothing. uml_dir is where the kernel has its control socket. What is built in would
// put a tunnel device of each kind into each network namespace, which modules that nobody loads do not.
func (u uml) command(initrd string, memory int, _ []mount) []string {
	return []string{
		u.kernel, fmt.Sprintf("mem=%dM", memory), "initrd=" + initrd, "uml_dir=" + filepath.Dir(initrd),
		"con=null", "con0=null,fd:1", "ssl=null", "ssl1=null,fd:3", "ssl2=null,fd:4",
		"console=tty0", "panic=-1", "loglevel=5", "fb_tunnels=none",
	}
}
