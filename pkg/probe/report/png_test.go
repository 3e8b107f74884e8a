package report

import (
	"bytes"
	"image/png"
	"math"
	"testing"

	"github.com/offloadd/offloadd/pkg/probe/result"
)

func TestPNG(t *testing.T) {
	run := scene(t, "quiet")
	data, err := PNG(run, udp)
	if err != nil {
		t.Fatal(err)
	}
	img, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if b := img.Bounds(); b.Dx() != 2*(width+24) || b.Dy() < 800 {
		t.Errorf("it is %v", b)
	}
	seen := map[any]int{}
	for y := range img.Bounds().Dy() {
		for x := range img.Bounds().Dx() {
			seen[img.At(x, y)]++
		}
	}
	for i, s := range light.series {
		if seen[rgb(s)] < 500 {
			t.Errorf("colour %d is seen in %d pixels", i, seen[rgb(s)])
		}
	}
	if again, err := PNG(run, udp); err != nil || !bytes.Equal(data, again) {
		t.Errorf("drawn again it differs, %v", err)
	}
	if _, err := PNG(run, result.Load{Mode: result.RR}); err == nil {
		t.Error("a load that is not there has a picture")
	}
}

// Strokes and gaps have their lengths, also around corners.
func TestDashes(t *testing.T) {
	for _, test := range []struct {
		dash    string
		strokes int
		length  float64
	}{{"7 3", 6, 40}, {"1 3", 14, 14}, {"9 3 2 3", 7, 37}} {
		parts := dashes([]point{{0, 0}, {30, 0}, {30, 25}}, test.dash)
		var length float64
		for _, part := range parts {
			for i := 1; i < len(part); i++ {
				length += math.Hypot(part[i].x-part[i-1].x, part[i].y-part[i-1].y)
			}
		}
		if len(parts) != test.strokes || math.Abs(length-test.length) > 1e-9 {
			t.Errorf("%s: %d strokes of %v in all, want %d of %v", test.dash, len(parts), length, test.strokes, test.length)
		}
	}
}
