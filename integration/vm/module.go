package vm

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// BuildModule builds a kernel module for a kernel, and returns the path of NAME.ko. src has a Kbuild file, and the sources. What
// was built from the same sources for the same kernel is in the cache. log receives a line for each long step; nil discards it.
func BuildModule(ctx context.Context, k Kernel, name string, src fs.FS, log io.Writer) (string, error) {
	if log == nil {
		log = io.Discard
	}
	file, err := buildModule(ctx, k, name, src, log)
	if err != nil {
		return "", fmt.Errorf("vm %s: module %s: %w", k, name, err)
	}
	return file, nil
}

func buildModule(ctx context.Context, k Kernel, name string, src fs.FS, log io.Writer) (string, error) {
	for _, p := range []string{"make", "gcc"} {
		if _, err := need(p); err != nil {
			return "", err
		}
	}
	var t tree
	var err error
	switch k {
	case UML:
		t, err = umlTree(ctx, log)
	case QEMU:
		t, err = qemuTree(ctx, log)
	default:
		err = unknown()
	}
	if err != nil {
		return "", err
	}
	hash := sha256.New()
	err = fs.WalkDir(src, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(src, path)
		fmt.Fprintf(hash, "%q %d\n%s", path, len(b), b)
		return err
	})
	if err != nil {
		return "", err
	}
	dir, err := cached(fmt.Sprintf("%s-%s-%x", name, t.kernel, hash.Sum(nil)[:6]), log, func(dir string) error {
		fmt.Fprintf(log, "vm: building the module %s for %s\n", name, t.kernel)
		if err := os.CopyFS(dir, src); err != nil {
			return err
		}
		// Warnings are errors: nobody reads them once it is in the cache.
		_, err := output(ctx, dir, append(t.make, "M="+dir, "KCFLAGS=-Werror", "modules")...)
		return err
	})
	return filepath.Join(dir, name+".ko"), err
}

// A tree is what modules are built in: what a kernel was built with, without most sources.
type tree struct {
	kernel string   // its name in the cache
	make   []string // the beginning of a command line
}

// umlTree is what buildUML has kept.
func umlTree(ctx context.Context, log io.Writer) (tree, error) {
	u, err := newUML(ctx, log)
	dir := filepath.Dir(u.kernel)
	return tree{filepath.Base(dir), []string{"make", "-C", filepath.Join(dir, umlBuild), "ARCH=um"}}, err
}

// qemuTree is that of Debian's packages with headers.
func qemuTree(ctx context.Context, log io.Writer) (tree, error) {
	pkg, version, err := qemuPackage(ctx)
	if err != nil {
		return tree{}, err
	}
	headers, err := cached("headers-"+version, log, func(dir string) error {
		fmt.Fprintf(log, "vm: fetching the headers for %s %s\n", pkg, version)
		return unpackHeaders(ctx, dir, strings.TrimPrefix(pkg, "linux-image-"), version)
	})
	return tree{version, []string{"make", "-C", filepath.Join(headers, "build")}}, err
}

// unpackHeaders makes dir the root into which the packages with a kernel's headers and build programs would have been
// installed. The name build in it is the directory for `make -C`. The packages know each other by absolute
// paths, in one Makefile.
func unpackHeaders(ctx context.Context, dir, release, version string) error {
	common := strings.TrimSuffix(release, "-amd64") + "-common"
	kbuild, err := output(ctx, "/", "apt-cache", "depends", "--important", "linux-headers-"+release)
	if err != nil {
		return err
	}
	_, kbuild, ok := strings.Cut(kbuild, "Depends: linux-kbuild-")
	if !ok {
		return errors.New("linux-headers-" + release + " depends on no linux-kbuild")
	}
	kbuild, _, _ = strings.Cut(kbuild, "\n")
	const script = `
		apt-get download -q -o APT::Sandbox::User=root "linux-headers-$1=$3" "linux-headers-$2=$3" "linux-kbuild-$4" >&2
		for f in *.deb; do dpkg -x "$f" .; done
		rm ./*.deb
		ln -s "usr/src/linux-headers-$1" build
		sed -i "s| /usr/src/| $5/usr/src/|" build/Makefile
	`
	// The directory has its final name only when it is complete.
	_, err = output(ctx, dir, "sh", "-ec", script, "sh", release, common, version, kbuild, strings.TrimSuffix(dir, ".new"))
	return err
}
