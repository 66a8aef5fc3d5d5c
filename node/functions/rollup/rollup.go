package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"sort"
	"strconv"
	"time"
)

// Hours that one roll-up may have: bounds what a guest keeps in memory.
const groupsMax = 100_000

var (
	columnsIn  = []string{"time", "sensor", "value"}
	columnsOut = []string{"hour", "sensor", "count", "min", "mean", "max"}
)

// An hour of a sensor.
type key struct {
	hour   int64
	sensor string
}

type group struct {
	count         int
	min, max, sum float64
}

func (g *group) add(value float64) {
	if g.count == 0 || value < g.min {
		g.min = value
	}
	if g.count == 0 || value > g.max {
		g.max = value
	}
	g.count++
	g.sum += value
}

// rollUp reads readings and writes their hours, sorted by time and sensor.
func rollUp(in io.Reader, out io.Writer) error {
	groups, err := read(in)
	if err != nil {
		return err
	}
	keys := make([]key, 0, len(groups))
	for k := range groups {
		keys = append(keys, k)
	}
	sort.Slice(keys, func(a, b int) bool {
		if keys[a].hour != keys[b].hour {
			return keys[a].hour < keys[b].hour
		}
		return keys[a].sensor < keys[b].sensor
	})
	writer := csv.NewWriter(out)
	writer.Write(columnsOut) // a failure is kept and told by Error
	for _, k := range keys {
		g := groups[k]
		hour := time.Unix(k.hour*3600, 0).UTC().Format(time.RFC3339)
		writer.Write([]string{hour, k.sensor, strconv.Itoa(g.count), number(g.min), number(g.sum / float64(g.count)), number(g.max)})
	}
	writer.Flush()
	return writer.Error()
}

func read(in io.Reader) (map[key]*group, error) {
	reader := csv.NewReader(in)
	reader.FieldsPerRecord = len(columnsIn)
	reader.ReuseRecord = true
	head, err := reader.Read()
	if errors.Is(err, io.EOF) {
		return nil, errors.New("no data: the first line is `time,sensor,value`")
	} else if err != nil {
		return nil, err
	}
	for column, name := range columnsIn {
		if head[column] != name {
			return nil, fmt.Errorf("the first line is `time,sensor,value`; its column %d is %q", column+1, head[column])
		}
	}
	groups := make(map[key]*group)
	for {
		record, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return groups, nil
		} else if err != nil {
			return nil, err
		}
		if err := add(groups, record); err != nil {
			line, _ := reader.FieldPos(0)
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
	}
}

func add(groups map[key]*group, record []string) error {
	at, err := time.Parse(time.RFC3339, record[0])
	if err != nil {
		return fmt.Errorf("%q is not a time of RFC 3339", record[0])
	}
	value, err := strconv.ParseFloat(record[2], 64)
	if err != nil || math.IsNaN(value) || math.IsInf(value, 0) {
		return fmt.Errorf("%q is not a number", record[2])
	}
	k := key{int64(math.Floor(float64(at.Unix()) / 3600)), record[1]}
	g := groups[k]
	if g == nil {
		if len(groups) == groupsMax {
			return fmt.Errorf("more than %d hours", groupsMax)
		}
		g = new(group)
		groups[k] = g
	}
	g.add(value)
	return nil
}

// number is short and exact to a thousandth.
func number(value float64) string {
	return strconv.FormatFloat(math.Round(value*1000)/1000, 'f', -1, 64)
}
