package report

import (
	"fmt"
	"image/color"
	"strings"
)

// A theme is the colours of all inks, and of what they are on.
type theme struct {
	surface, raised, text, faint, grid, band, warn string

	series [hues]string
}

// Colours of series are those of Okabe and Ito for colour-blind readers, darker or lighter where the surface asks for contrast.
var (
	light = theme{
		surface: "#ffffff", raised: "#f5f6f8", text: "#1b1f24", faint: "#5b6470", grid: "#e3e6ea", band: "#d5dae1", warn: "#9a3b00",
		series: [hues]string{"#0065a8", "#c24e00", "#00805d", "#a8488a", "#8a6d00", "#2f8fc4", "#4b4f58", "#b3261e"},
	}
	dark = theme{
		surface: "#14171b", raised: "#1d2127", text: "#e6e9ed", faint: "#9aa4b0", grid: "#2b3138", band: "#3a424c", warn: "#ffb074",
		series: [hues]string{"#5cb3f0", "#ff9447", "#3fcfa3", "#e091c6", "#e3c649", "#9ad7ff", "#b6bcc6", "#ff8a80"},
	}
)

func (t theme) of(i ink) string {
	if i >= series {
		return t.series[int(i-series)%hues]
	}
	return [...]string{text: t.text, faint: t.faint, grid: t.grid, band: t.band}[i]
}

// rgb reads a colour as #1b1f24.
func rgb(s string) color.RGBA {
	var c color.RGBA
	if _, err := fmt.Sscanf(s, "#%02x%02x%02x", &c.R, &c.G, &c.B); err != nil {
		panic("report: the colour " + s + ": " + err.Error())
	}
	c.A = 255
	return c
}

func (t theme) variables() string {
	var b strings.Builder
	fmt.Fprintf(&b, "--surface:%s;--raised:%s;--t:%s;--f:%s;--g:%s;--b:%s;--warn:%s", t.surface, t.raised, t.text, t.faint, t.grid, t.band, t.warn)
	for i, c := range t.series {
		fmt.Fprintf(&b, ";--s%d:%s", i, c)
	}
	return b.String()
}

func style() string {
	var b strings.Builder
	fmt.Fprintf(&b, ":root{color-scheme:light dark;%s}\n", light.variables())
	fmt.Fprintf(&b, "@media (prefers-color-scheme:dark){:root{%s}}\n", dark.variables())
	fmt.Fprintf(&b, "@media print{:root{%s}}\n", light.variables())
	b.WriteString(`body{margin:0;background:var(--surface);color:var(--t);font:15px/1.5 system-ui,sans-serif}
main{max-width:1120px;margin:0 auto;padding:24px 20px 64px}
h1{font-size:26px;margin:0}h2{font-size:20px;margin:40px 0 4px;padding-top:16px;border-top:1px solid var(--g)}h3{font-size:15px;margin:28px 0 8px}
p{margin:6px 0;max-width:90ch}.sub,.notes{color:var(--f);font-size:13px}.notes{margin:4px 0;padding-left:18px}
.warn{color:var(--warn);font-weight:600}nav{margin:12px 0}a{color:var(--s0);margin-right:14px}
figure{margin:0;overflow-x:auto}svg{display:block;width:100%;min-width:640px;height:auto;font:12px system-ui,sans-serif}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:4px 7px;white-space:nowrap}th{color:var(--f);font-weight:600;border-bottom:1px solid var(--f)}
td{border-bottom:1px solid var(--g)}tbody tr:hover{background:var(--raised)}.left{text-align:left}.wrap{white-space:normal;min-width:16em}
.slower{color:var(--s1);font-weight:600}.faster{color:var(--s2);font-weight:600}.open{color:var(--f)}
dl{display:grid;grid-template-columns:max-content 1fr;gap:2px 16px;font-size:13px;margin:0}dt{color:var(--f)}dd{margin:0;overflow-wrap:anywhere}
.two{display:grid;grid-template-columns:repeat(auto-fit,minmax(320px,1fr));gap:0 40px}
text.t{fill:var(--t)}text.f{fill:var(--f)}.g{stroke:var(--g)}.f.l{stroke:var(--f)}.l{fill:none!important;stroke-linejoin:round}rect.b{fill:var(--b)}
`)
	for i := range hues {
		fmt.Fprintf(&b, ".s%d{fill:var(--s%d)}.s%d.l,.s%d.o{stroke:var(--s%d)}\n", i, i, i, i, i)
	}
	b.WriteString(`.o{fill:var(--surface)!important;stroke-width:2}
@media print{main{max-width:none;padding:0}section{break-inside:auto}figure,tr{break-inside:avoid}h2,h3{break-after:avoid}.scroll,figure{overflow:visible}table{font-size:10px}th,td{padding:2px 4px}nav{display:none}}
`)
	return b.String()
}
