module rollup

go 1.21
