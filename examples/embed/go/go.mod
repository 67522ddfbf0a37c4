module recommend

go 1.18
