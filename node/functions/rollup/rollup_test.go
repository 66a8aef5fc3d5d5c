package main

import (
	"strings"
	"testing"
)

const head = "time,sensor,value\n"

func TestHoursAreSummedUpAndSorted(t *testing.T) {
	in := head + "2026-11-23T11:00:00Z,boiler,1\n2026-11-23T10:15:00Z,boiler,20\n2026-11-23T11:45:00+01:00,boiler,30.0005\n" +
		"2026-11-23T10:59:59Z,\"a, b\",-1\n"
	want := "hour,sensor,count,min,mean,max\n2026-11-23T10:00:00Z,\"a, b\",1,-1,-1,-1\n" +
		"2026-11-23T10:00:00Z,boiler,2,20,25,30.001\n2026-11-23T11:00:00Z,boiler,1,1,1,1\n"
	var out strings.Builder
	if err := rollUp(strings.NewReader(in), &out); err != nil || out.String() != want {
		t.Errorf("%v\n%s", err, out.String())
	}
}

func TestFaultsAreNamedByTheirLine(t *testing.T) {
	for in, want := range map[string]string{
		"":                                       "no data",
		"sensor,time,value\n":                    "its column 1 is",
		head + "2026-11-23T10:00:00Z,a,1\nx,a,1": "line 3: \"x\" is not a time",
		head + "2026-11-23T10:00:00Z,a,NaN":      "line 2: \"NaN\" is not a number",
		head + "2026-11-23T10:00:00Z,a":          "wrong number of fields",
	} {
		err := rollUp(strings.NewReader(in), &strings.Builder{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", in, err)
		}
	}
}
