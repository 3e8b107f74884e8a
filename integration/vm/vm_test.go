package vm

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// cpio(1)'s format as busybox, which unpacks it in a guest, understands it: every name and all contents, whatever
// their lengths are modulo four.
func TestCPIO(t *testing.T) {
	busybox, err := need("busybox")
	if err != nil {
		t.Fatal(err)
	}
	entries := []entry{{"d", modeDir, nil}}
	for n := range 9 {
		entries = append(entries, entry{"d/" + strings.Repeat("n", n+1), modeFile, []byte(strings.Repeat("x", n))})
	}
	dir := t.TempDir()
	cmd := exec.Command(busybox, "cpio", "-i")
	cmd.Dir, cmd.Stdin = dir, bytes.NewReader(cpio(entries))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, e := range entries[1:] {
		if got := string(lastLines(filepath.Join(dir, e.name), 1)); got != string(e.data) {
			t.Errorf("%s = %q, want %q", e.name, got, e.data)
		}
	}
}

func TestLoadOrder(t *testing.T) {
	const dep = `kernel/virtio_ring.ko:
kernel/virtio.ko: kernel/virtio_ring.ko
kernel/virtio_pci.ko: kernel/virtio.ko kernel/virtio_ring.ko
kernel/9pnet.ko:
kernel/9p.ko: kernel/9pnet.ko kernel/virtio_ring.ko
`
	got, err := loadOrder(dep, []string{"virtio_pci", "9p"})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"kernel/virtio_ring.ko", "kernel/virtio.ko", "kernel/virtio_pci.ko", "kernel/9pnet.ko", "kernel/9p.ko"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("loadOrder (-want +got):\n%s", diff)
	}
	if got, err := loadOrder(dep, []string{"overlay"}); err == nil {
		t.Errorf("loadOrder(overlay) = %q, want an error", got)
	}
}

func TestLostOptions(t *testing.T) {
	const config = "CONFIG_A=y\nCONFIG_B=m\n# CONFIG_C is not set\nCONFIG_D=y\n"
	for _, tt := range []struct {
		line string
		lost bool
	}{
		{"CONFIG_A=y", false},
		{"CONFIG_B=y", true},
		{"CONFIG_C=y", true},
		{"CONFIG_E=y", true},
		{"CONFIG_C=n", false},
		{"CONFIG_E=n", false},
		{"CONFIG_D=n", true},
		{"# CONFIG_E=y", false},
		{"", false},
	} {
		if got := lostOptions(tt.line+"\n", config); (len(got) > 0) != tt.lost {
			t.Errorf("lostOptions(%q) = %q, want lost %v", tt.line, got, tt.lost)
		}
	}
}

// A word is one argument of a shell, whatever is in it.
func TestQuote(t *testing.T) {
	words := []string{"", "a b", "it's", `\`, `"$HOME"`, "`id`", "a\nb", "*", "''"}
	line := "printf '%s\\0'"
	for _, w := range words {
		line += " " + quote(w)
	}
	out, err := exec.Command("sh", "-c", line).Output()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Join(words, "\x00")+"\x00", string(out)); diff != "" {
		t.Errorf("quoted words (-want +got):\n%s", diff)
	}
}

// The program's directory and the working directory are there, even below what is empty in a guest.
func TestShown(t *testing.T) {
	for _, tt := range []struct {
		program, dir string
		want         []string
	}{
		{"/usr/bin/true", "/root", nil},
		{"true", "/tmp", nil},
		{"/tmp/go-build1/b001/x.test", "/root", []string{"/tmp/go-build1/b001"}},
		{"/tmp/a/x", "/tmp/a", []string{"/tmp/a"}},
		{"/tmpfoo/x", "/run/b", []string{"/run/b"}},
	} {
		if diff := cmp.Diff(tt.want, shown(Job{Argv: []string{tt.program}, Dir: tt.dir})); diff != "" {
			t.Errorf("shown(%s in %s) (-want +got):\n%s", tt.program, tt.dir, diff)
		}
	}
}
