package report

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"math"
	"strconv"
	"strings"

	"golang.org/x/image/font"
	"golang.org/x/image/font/gofont/goregular"
	"golang.org/x/image/font/opentype"
	"golang.org/x/image/math/fixed"
	"golang.org/x/image/vector"

	"github.com/offloadd/offloadd/pkg/probe/result"
)

// density is pixels of a picture for one of SVG.
const density = 2

// PNG is the percentile plot of one load, in light colours, for slides and chats that take no SVG.
func PNG(run *result.Run, load result.Load) ([]byte, error) {
	for _, s := range sections(run) {
		if s.load != load {
			continue
		}
		curves, err := s.curves()
		if err != nil {
			return nil, err
		}
		if len(curves) == 0 {
			return nil, fmt.Errorf("report png: %s has no latencies", load)
		}
		const head, margin = 64, 12
		p, err := newPixels(width+2*margin, percentileHeight(curves)+head+margin)
		if err != nil {
			return nil, err
		}
		p.text(margin, 26, left, text, fmt.Sprintf("%s on %s, %s", load, run.Machine.Hostname, when(run.Started)))
		p.text(margin, 44, left, faint, manner(run))
		p.x, p.y = margin, head
		percentilePlot(p, curves, "us")
		return p.encode()
	}
	return nil, fmt.Errorf("report png: the run has no %s", load)
}

// pixels is a canvas of them. x and y move what is drawn.
type pixels struct {
	image *image.RGBA
	face  font.Face
	x, y  float64
}

func newPixels(w, h float64) (*pixels, error) {
	parsed, err := opentype.Parse(goregular.TTF)
	if err != nil {
		return nil, fmt.Errorf("report png: font: %w", err)
	}
	face, err := opentype.NewFace(parsed, &opentype.FaceOptions{Size: 12 * density, DPI: 72, Hinting: font.HintingFull})
	if err != nil {
		return nil, fmt.Errorf("report png: font: %w", err)
	}
	p := &pixels{image: image.NewRGBA(image.Rect(0, 0, int(w*density), int(h*density))), face: face}
	draw.Draw(p.image, p.image.Bounds(), image.NewUniform(rgb(light.surface)), image.Point{}, draw.Src)
	return p, nil
}

func (p *pixels) encode() ([]byte, error) {
	var b bytes.Buffer
	if err := png.Encode(&b, p.image); err != nil {
		return nil, fmt.Errorf("report png: %w", err)
	}
	return b.Bytes(), nil
}

func (p *pixels) at(q point) point { return point{(p.x + q.x) * density, (p.y + q.y) * density} }

// fill paints polygons in one colour. They may overlap: all turn the same way, so the rasteriser adds them up and cuts off what is more than full.
func (p *pixels) fill(c color.RGBA, polygons ...[]point) {
	r := vector.NewRasterizer(p.image.Bounds().Dx(), p.image.Bounds().Dy())
	for _, polygon := range polygons {
		for i, q := range polygon {
			if i == 0 {
				r.MoveTo(float32(q.x), float32(q.y))
			} else {
				r.LineTo(float32(q.x), float32(q.y))
			}
		}
		r.ClosePath()
	}
	r.Draw(p.image, p.image.Bounds(), image.NewUniform(c), image.Point{})
}

func (p *pixels) line(points []point, i ink, width float64, dash string) {
	var polygons [][]point
	for _, part := range dashes(points, dash) {
		for k := range part {
			a := p.at(part[k])
			if len(part) > 2 {
				polygons = append(polygons, disc(a, width*density/2))
			}
			if k == 0 {
				continue
			}
			b := p.at(part[k-1])
			length := math.Hypot(b.x-a.x, b.y-a.y)
			if length == 0 {
				continue
			}
			nx, ny := (b.y-a.y)/length*width*density/2, -(b.x-a.x)/length*width*density/2
			polygons = append(polygons, []point{{a.x + nx, a.y + ny}, {b.x + nx, b.y + ny}, {b.x - nx, b.y - ny}, {a.x - nx, a.y - ny}})
		}
	}
	p.fill(rgb(light.of(i)), polygons...)
}

func (p *pixels) rect(x, y, w, h float64, i ink) {
	a, b := p.at(point{x, y}), p.at(point{x + w, y + h})
	p.fill(rgb(light.of(i)), []point{a, {b.x, a.y}, b, {a.x, b.y}})
}

func (p *pixels) circle(x, y, r float64, i ink, filled bool) {
	p.fill(rgb(light.of(i)), disc(p.at(point{x, y}), (r+0.5)*density))
	if !filled {
		p.fill(rgb(light.surface), disc(p.at(point{x, y}), (r-1)*density))
	}
}

func (p *pixels) text(x, y float64, a align, i ink, s string) {
	d := font.Drawer{Dst: p.image, Src: image.NewUniform(rgb(light.of(i))), Face: p.face}
	at, w := p.at(point{x, y}), float64(d.MeasureString(s))/64
	at.x -= w * [...]float64{left: 0, middle: 0.5, right: 1}[a]
	d.Dot = fixed.Point26_6{X: fixed.Int26_6(at.x * 64), Y: fixed.Int26_6(at.y * 64)}
	d.DrawString(s)
}

// disc turns as the quadrangles of line do.
func disc(c point, r float64) []point {
	const corners = 16
	polygon := make([]point, corners)
	for i := range polygon {
		sin, cos := math.Sincos(2 * math.Pi * float64(i) / corners)
		polygon[i] = point{c.x + r*cos, c.y + r*sin}
	}
	return polygon
}

// dashes cuts a line as SVG's stroke-dasharray does: lengths of strokes and gaps in turn.
func dashes(points []point, dash string) [][]point {
	if dash == "" {
		return [][]point{points}
	}
	var lengths []float64
	for word := range strings.FieldsSeq(dash) {
		v, err := strconv.ParseFloat(word, 64)
		if err != nil || v <= 0 {
			panic("report: the dashes " + dash)
		}
		lengths = append(lengths, v)
	}
	var (
		all  [][]point
		part = []point{points[0]}
		k    int
		rest = lengths[0]
	)
	for i := 1; i < len(points); i++ {
		a, b := points[i-1], points[i]
		for {
			length := math.Hypot(b.x-a.x, b.y-a.y)
			if length <= rest {
				rest -= length
				part = append(part, b)
				break
			}
			a = point{a.x + (b.x-a.x)*rest/length, a.y + (b.y-a.y)*rest/length}
			if part = append(part, a); k%2 == 0 {
				all = append(all, part)
			}
			part, k = []point{a}, k+1
			rest = lengths[k%len(lengths)]
		}
	}
	if k%2 == 0 {
		all = append(all, part)
	}
	return all
}
